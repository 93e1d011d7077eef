// The harness for the CUDA operations: as harness.hpp, with the tensors of a call in device memory.
//
// - check: against the reference in double; and twice, because the same inputs must give the same bits.
// - measure: median device time with cold caches, against a copy of as many bytes timed in the same way, or against the
//   fastest matrix product of this device.
#pragma once

#include <cuda_runtime_api.h>

#include <filesystem>
#include <map>
#include <set>

#include "kernels/cuda/cudnn_attention.hpp"
#include "kernels/cuda/device.hpp"
#include "kernels/cuda/gemm.hpp"
#include "kernels/cuda/linear.hpp"
#include "kernels/harness/harness.hpp"

namespace stagecraft::kernels {

// The tensors of one call, in the order of the case's list.
class DeviceArguments {
 public:
  explicit DeviceArguments(std::vector<std::byte*> tensors) : tensors_(std::move(tensors)) {}
  template <class T>
  T* at(std::size_t tensor) const {
    return reinterpret_cast<T*>(tensors_[tensor]);
  }
  const std::int32_t* indices(std::size_t tensor) const { return at<const std::int32_t>(tensor); }

 private:
  std::vector<std::byte*> tensors_;
};

// One entry point at one shape; the fields of Case, with a candidate that enqueues on a stream.
struct CudaCase {
  std::string op;  // the file's name under kernels/cuda
  std::string name;
  std::vector<Tensor> tensors;
  std::function<void(const DeviceArguments&, cudaStream_t)> candidate;
  std::function<void(const Arguments<double>&)> reference;
  std::function<void(const Arguments<double>&)> prepare = {};
  double flops = 0.0;
  double bytes = 0.0;  // read and written at least, where that is not every tensor whole; 0 where it is
  double tolerance = 1e-5;
  Scale scale = Scale::rms;
  bool repeatable = true;  // the same inputs give the same bits
};

// Errors of CUDA are failures of the check.
Outcome check(const CudaCase& test, std::uint64_t seed);

// The libraries that some operations run on, for one device.
struct CudaLibraries {
  std::filesystem::path gemm_cache;  // written by `gemm`; may be empty
  cuda::Stream stream = {};
  cuda::Gemm gemm{gemm_cache};
  cuda::Gemm untuned_gemm = cuda::Gemm();
  cuda::Buffer gemm_workspace{cuda::gemm_workspace_bytes};
  cuda::CudnnAttention attention{cuda::AttentionBackward::fast};
  cuda::CudnnAttention deterministic_attention{cuda::AttentionBackward::deterministic};

  cuda::GemmContext context(cudaStream_t on) {
    return {.gemm = &gemm, .workspace = gemm_workspace.data(), .stream = on};
  }
  // Lets `gemm` choose, once.
  void tune(const cuda::GemmShape& shape);
  std::set<cuda::GemmShape> tuned = {};
};

struct CudaTiming {
  double median_s;
  double flops_per_s;     // 0 if the case counts none
  double bytes_per_s;     // of CudaCase::bytes
  double share_of_floor;  // 1: as fast as a copy of as many bytes, or as the fastest product of as many operations
};

// What the device can do, measured when first asked for.
class CudaFloors {
 public:
  explicit CudaFloors(CudaLibraries& libraries);
  double flops_per_s();                    // a large product of Bf16
  double copy_seconds(std::size_t bytes);  // reading half of them and writing half
  // Median seconds of device time, with nothing of the operation's in the caches.
  double cold_seconds(const std::function<void(cudaStream_t)>& body);

 private:
  CudaLibraries& libraries_;
  cuda::Buffer sweep_, copy_from_, copy_to_, total_, partials_;
  std::map<std::size_t, double> copies_;
  double flops_per_s_ = 0.0;
};

CudaTiming measure(const CudaCase& test, CudaFloors& floors, cudaStream_t stream);

// Small and odd shapes that reach every branch, and the widths of GPT-2 124M, GPT-2 XL and Llama with few rows.
std::vector<CudaCase> cuda_test_cases(CudaLibraries& libraries);
// A layer of GPT-2 XL and what surrounds the layers, and of Llama where it differs.
std::vector<CudaCase> cuda_perf_cases(CudaLibraries& libraries);
// In single precision.
std::vector<GradientCase> cuda_gradient_cases(CudaLibraries& libraries);

}  // namespace stagecraft::kernels
