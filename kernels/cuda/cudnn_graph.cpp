#include "kernels/cuda/cudnn_graph.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "kernels/cuda/error.hpp"

namespace stagecraft::kernels::cuda {
namespace {

std::string last_message() {
  std::array<char, 1024> message{};
  cudnnGetLastErrorString(message.data(), message.size());
  return message.data();
}

}  // namespace

void check(cudnnStatus_t status, const char* expression) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw Error(std::string(expression) + ": " + cudnnGetErrorString(status) + ": " + last_message());
}

void DestroyDescriptor::operator()(cudnnBackendDescriptor_t descriptor) const {
  static_cast<void>(cudnnBackendDestroyDescriptor(descriptor));
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) {
  cudnnBackendDescriptor_t descriptor = nullptr;
  STAGECRAFT_CUDA_CHECK(cudnnBackendCreateDescriptor(type, &descriptor));
  descriptor_.reset(descriptor);
}

void Descriptor::set_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
                         const void* values) {
  const std::string call = "cudnnBackendSetAttribute(" + std::to_string(name) + ")";
  check(cudnnBackendSetAttribute(get(), name, type, count, values), call.c_str());
}

void Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                     std::span<const std::int64_t> values) {
  set_raw(name, type, static_cast<std::int64_t>(values.size()), values.data());
}

void Descriptor::set(cudnnBackendAttributeName_t name, std::int64_t value) {
  set_raw(name, CUDNN_TYPE_INT64, 1, &value);
}

void Descriptor::set(cudnnBackendAttributeName_t name, const Descriptor& value) {
  const cudnnBackendDescriptor_t raw = value.get();
  set_raw(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw);
}

void Descriptor::finish() { STAGECRAFT_CUDA_CHECK(cudnnBackendFinalize(get())); }

std::int64_t Descriptor::integer(cudnnBackendAttributeName_t name) const {
  std::int64_t value = 0;
  std::int64_t count = 0;
  STAGECRAFT_CUDA_CHECK(cudnnBackendGetAttribute(get(), name, CUDNN_TYPE_INT64, 1, &count, &value));
  return value;
}

Layout packed(std::int64_t batch, std::int64_t heads, std::int64_t rows, std::int64_t columns) {
  return {{batch, heads, rows, columns}, {heads * rows * columns, rows * columns, columns, 1}};
}

Layout transposed(const Layout& layout) {
  Layout result = layout;
  std::swap(result.sizes[2], result.sizes[3]);
  std::swap(result.strides[2], result.strides[3]);
  return result;
}

CudnnDevice::CudnnDevice(cudnnHandle_t handle) {
  descriptor_.set(CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, &handle);
  descriptor_.finish();
}

CudnnDevice::CudnnDevice(const std::string& properties) {
  descriptor_.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, properties.data(),
                  static_cast<std::int64_t>(properties.size()));
  descriptor_.finish();
}

std::string CudnnDevice::properties() const {
  std::int64_t size = 0;
  STAGECRAFT_CUDA_CHECK(cudnnBackendGetAttribute(descriptor_.get(), CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                                 CUDNN_TYPE_CHAR, 0, &size, nullptr));
  std::string json(static_cast<std::size_t>(size), '\0');
  STAGECRAFT_CUDA_CHECK(cudnnBackendGetAttribute(descriptor_.get(), CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                                 CUDNN_TYPE_CHAR, size, &size, json.data()));
  return json.substr(0, json.find('\0'));
}

TensorId CudnnGraph::add_tensor(cudnnDataType_t type, const Layout& layout, bool is_virtual, bool by_value) {
  Descriptor& tensor = tensors_.emplace_back(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  const auto id = static_cast<TensorId>(tensors_.size());
  tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
  tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, &type);
  tensor.set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, layout.sizes);
  tensor.set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, layout.strides);
  tensor.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 16);
  tensor.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, &is_virtual);
  tensor.set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, &by_value);
  tensor.finish();
  return id;
}

TensorId CudnnGraph::tensor(cudnnDataType_t type, const Layout& layout) {
  return add_tensor(type, layout, false, false);
}
TensorId CudnnGraph::virtual_tensor(cudnnDataType_t type, const Layout& layout) {
  return add_tensor(type, layout, true, false);
}
TensorId CudnnGraph::scalar() { return add_tensor(CUDNN_DATA_FLOAT, packed(1, 1, 1, 1), false, true); }

void CudnnGraph::matmul(TensorId c, TensorId a, TensorId b) {
  const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
  Descriptor& mode = modes_.emplace_back(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  mode.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, &compute);
  mode.finish();
  Descriptor& operation = operations_.emplace_back(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, at(a));
  operation.set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, at(b));
  operation.set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, at(c));
  operation.set(CUDNN_ATTR_OPERATION_MATMUL_DESC, mode);
  operation.finish();
}

void CudnnGraph::reduce(TensorId y, cudnnReduceTensorOp_t op, TensorId x) {
  const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
  Descriptor& mode = modes_.emplace_back(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  mode.set(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, &op);
  mode.set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, &compute);
  mode.finish();
  Descriptor& operation = operations_.emplace_back(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, at(x));
  operation.set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, at(y));
  operation.set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, mode);
  operation.finish();
}

void CudnnGraph::reshape(TensorId y, TensorId x) {
  Descriptor& operation = operations_.emplace_back(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, at(x));
  operation.set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, at(y));
  operation.finish();
}

struct CudnnGraph::Pointwise {
  cudnnPointwiseMode_t mode;
  TensorId y;
  TensorId x;
  TensorId b = -1;
  TensorId condition = -1;
  std::int64_t axis = -1;
  cudnnDataType_t compute = CUDNN_DATA_FLOAT;
};

void CudnnGraph::pointwise(const Pointwise& p) {
  Descriptor& mode = modes_.emplace_back(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  mode.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, &p.mode);
  mode.set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, &p.compute);
  if (p.axis >= 0) mode.set(CUDNN_ATTR_POINTWISE_AXIS, p.axis);
  mode.finish();
  Descriptor& operation = operations_.emplace_back(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, mode);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, at(p.x));
  if (p.b >= 0) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, at(p.b));
  if (p.condition >= 0) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, at(p.condition));
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, at(p.y));
  operation.finish();
}

void CudnnGraph::unary(TensorId y, cudnnPointwiseMode_t mode, TensorId x) { pointwise({.mode = mode, .y = y, .x = x}); }
void CudnnGraph::binary(TensorId y, cudnnPointwiseMode_t mode, TensorId x, TensorId b) {
  pointwise({.mode = mode, .y = y, .x = x, .b = b});
}
void CudnnGraph::index(TensorId y, TensorId like, std::int64_t axis) {
  pointwise({.mode = CUDNN_POINTWISE_GEN_INDEX, .y = y, .x = like, .axis = axis});
}
void CudnnGraph::compare(TensorId y, cudnnPointwiseMode_t mode, TensorId x, TensorId b) {
  pointwise({.mode = mode, .y = y, .x = x, .b = b, .compute = CUDNN_DATA_BOOLEAN});
}
void CudnnGraph::select(TensorId y, TensorId condition, TensorId if_true, TensorId if_false) {
  pointwise({.mode = CUDNN_POINTWISE_BINARY_SELECT, .y = y, .x = if_true, .b = if_false, .condition = condition});
}

CudnnPlan CudnnGraph::plan(const CudnnDevice& device, const std::string& name) && {
  std::vector<cudnnBackendDescriptor_t> raw;
  for (const Descriptor& operation : operations_) raw.push_back(operation.get());
  Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, raw.data(),
            static_cast<std::int64_t>(raw.size()));
  graph.finish();

  const cudnnBackendHeurMode_t heuristic_mode = CUDNN_HEUR_MODE_A;
  Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, device.descriptor_);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, &heuristic_mode);
  heuristics.finish();
  constexpr std::int64_t most = 16;
  std::vector<Descriptor> configurations;
  std::vector<cudnnBackendDescriptor_t> raw_configurations;
  for (std::int64_t i = 0; i < most; ++i) {
    raw_configurations.push_back(configurations.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).get());
  }
  std::int64_t found = 0;
  STAGECRAFT_CUDA_CHECK(cudnnBackendGetAttribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, most, &found,
                                                 raw_configurations.data()));
  std::string reason = "the heuristics know no engine";
  for (std::int64_t i = 0; i < found; ++i) {
    try {
      Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
      plan.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device.descriptor_);
      plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configurations[static_cast<std::size_t>(i)]);
      plan.finish();
      const std::int64_t bytes = plan.integer(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE);
      std::vector<Descriptor> parts = std::move(tensors_);
      std::move(modes_.begin(), modes_.end(), std::back_inserter(parts));
      std::move(operations_.begin(), operations_.end(), std::back_inserter(parts));
      parts.push_back(std::move(graph));
      parts.push_back(std::move(configurations[static_cast<std::size_t>(i)]));
      parts.push_back(std::move(plan));
      return {std::move(parts), static_cast<std::size_t>(bytes)};
    } catch (const Error& error) {
      reason = error.what();
    }
  }
  throw Error("cuDNN " + std::to_string(cudnnGetVersion()) + " has no engine for " + name + ": " + reason);
}

void CudnnPlan::run(cudnnHandle_t handle, std::span<const Binding> bindings, void* workspace) const {
  std::vector<TensorId> ids;
  std::vector<const void*> data;
  for (const Binding& binding : bindings) {
    ids.push_back(binding.tensor);
    data.push_back(binding.data);
  }
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, ids);
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, data.data(),
           static_cast<std::int64_t>(data.size()));
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, &workspace);
  pack.finish();
  STAGECRAFT_CUDA_CHECK(cudnnBackendExecute(handle, parts_.back().get(), pack.get()));
}

}  // namespace stagecraft::kernels::cuda
