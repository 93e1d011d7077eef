// cuDNN's backend API (cudnnBackend*): a graph of operations on tensors, compiled into one plan. Private to
// kernels/cuda.
#pragma once

#include <cudnn.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace stagecraft::kernels::cuda {

void check(cudnnStatus_t status, const char* expression);

struct DestroyDescriptor {
  using pointer = cudnnBackendDescriptor_t;
  void operator()(cudnnBackendDescriptor_t descriptor) const;
};

// A descriptor under construction, then finished. Failures throw Error with cuDNN's own explanation.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type);
  cudnnBackendDescriptor_t get() const { return descriptor_.get(); }
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::span<const std::int64_t> values);
  void set(cudnnBackendAttributeName_t name, std::int64_t value);
  void set(cudnnBackendAttributeName_t name, const Descriptor& value);
  template <class Value>
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const Value* values,
           std::int64_t count = 1) {
    set_raw(name, type, count, values);
  }
  void finish();
  // REQUIRES: finished.
  std::int64_t integer(cudnnBackendAttributeName_t name) const;

 private:
  void set_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
               const void* values);
  std::unique_ptr<cudnnBackendDescriptor_t, DestroyDescriptor> descriptor_;
};

// In elements: batch, head, row, column.
struct Layout {
  std::array<std::int64_t, 4> sizes;
  std::array<std::int64_t, 4> strides;
};

// Rows last but one, columns last, without gaps.
Layout packed(std::int64_t batch, std::int64_t heads, std::int64_t rows, std::int64_t columns);
Layout transposed(const Layout& layout);

// The device that plans are made for, which this machine need not have.
class CudnnDevice {
 public:
  explicit CudnnDevice(cudnnHandle_t handle);           // the handle's
  explicit CudnnDevice(const std::string& properties);  // of another, as properties() gave them there
  std::string properties() const;                       // JSON, in the form of this cuDNN

 private:
  friend class CudnnGraph;
  Descriptor descriptor_{CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR};
};

using TensorId = std::int64_t;  // from 1

// What a tensor of the plan is bound to: device memory, or host memory for a scalar.
struct Binding {
  TensorId tensor;
  const void* data;
};

class CudnnPlan {
 public:
  std::size_t workspace_bytes() const { return workspace_bytes_; }
  // Scalars are read during the call. REQUIRES: workspace has workspace_bytes().
  void run(cudnnHandle_t handle, std::span<const Binding> bindings, void* workspace) const;

 private:
  friend class CudnnGraph;
  CudnnPlan(std::vector<Descriptor> parts, std::size_t workspace_bytes)
      : parts_(std::move(parts)), workspace_bytes_(workspace_bytes) {}
  std::vector<Descriptor> parts_;  // the plan is the last; it refers to the others
  std::size_t workspace_bytes_;
};

// Operations in the order in which they are added; arithmetic is float.
class CudnnGraph {
 public:
  TensorId tensor(cudnnDataType_t type, const Layout& layout);          // bound at run time
  TensorId virtual_tensor(cudnnDataType_t type, const Layout& layout);  // exists only inside the plan
  TensorId scalar();                                                    // a float on the host

  void matmul(TensorId c, TensorId a, TensorId b);
  void reduce(TensorId y, cudnnReduceTensorOp_t op, TensorId x);
  void reshape(TensorId y, TensorId x);
  void unary(TensorId y, cudnnPointwiseMode_t mode, TensorId x);
  void binary(TensorId y, cudnnPointwiseMode_t mode, TensorId x, TensorId b);
  void index(TensorId y, TensorId like, std::int64_t axis);  // y = own index along the axis
  void compare(TensorId y, cudnnPointwiseMode_t mode, TensorId x, TensorId b);
  void select(TensorId y, TensorId condition, TensorId if_true, TensorId if_false);

  // Throws Error if no engine of this cuDNN can run the graph on the device.
  CudnnPlan plan(const CudnnDevice& device, const std::string& name) &&;

 private:
  TensorId add_tensor(cudnnDataType_t type, const Layout& layout, bool is_virtual, bool by_value);
  struct Pointwise;
  void pointwise(const Pointwise& operation);
  const Descriptor& at(TensorId tensor) const { return tensors_[static_cast<std::size_t>(tensor - 1)]; }

  std::vector<Descriptor> tensors_;
  std::vector<Descriptor> modes_;
  std::vector<Descriptor> operations_;
};

}  // namespace stagecraft::kernels::cuda
