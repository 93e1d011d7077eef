// Failures of the CUDA runtime, cuBLASLt and cuDNN as exceptions that name the call.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace stagecraft::kernels::cuda {

// what(): "cudaMemcpyAsync(...): invalid argument (cudaErrorInvalidValue)".
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

void check(cudaError_t status, const char* expression);

// After a kernel launch: throws if it was refused. Faults inside a kernel surface at a later call, as always in CUDA.
void check_launch(const char* kernel);

}  // namespace stagecraft::kernels::cuda

#define STAGECRAFT_CUDA_CHECK(expression) ::stagecraft::kernels::cuda::check((expression), #expression)
