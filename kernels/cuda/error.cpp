#include "kernels/cuda/error.hpp"

namespace stagecraft::kernels::cuda {

void check(cudaError_t status, const char* expression) {
  if (status == cudaSuccess) return;
  throw Error(std::string(expression) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")");
}

void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

}  // namespace stagecraft::kernels::cuda
