// A rank's share of a GPU: all of it, or a slice with some of its multiprocessors (a CUDA green context).
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <memory>
#include <type_traits>

#include "kernels/cuda/device.hpp"
#include "kernels/cuda/error.hpp"
#include "models/error.hpp"
#include "runtime/cuda/module.hpp"

namespace stagecraft::cuda {

// Failures of CUDA and its libraries as the program knows them.
template <class Body>
auto as_device_error(Body&& body) -> decltype(body()) {
  try {
    return std::forward<Body>(body)();
  } catch (const kernels::cuda::Error& error) {
    throw Error(ErrorKind::device, error.what());
  }
}

struct DestroyGreenContext {
  using pointer = CUgreenCtx;
  void operator()(CUgreenCtx context) const;
};

class Device {
 public:
  // Makes the device current for the calling thread. Throws kernels::cuda::Error, which says what a slice may be when
  // the GPU cannot be cut so.
  explicit Device(const DevicePlace& place);

  int gpu() const { return place_.gpu; }
  bool is_slice() const { return !place_.slices.empty(); }
  int multiprocessors() const { return multiprocessors_; }
  // For names of files and messages: "NVIDIA H200", "NVIDIA H200, 32 multiprocessors".
  std::string name() const;
  // Work on it stays on the device's multiprocessors.
  cudaStream_t compute() const { return compute_.get(); }
  // For copies that run beside the computation: messages that arrive, and messages that leave.
  cudaStream_t arrivals() const { return arrivals_.get(); }
  cudaStream_t departures() const { return departures_.get(); }
  // For sums over GPUs that run beside the computation, and before it where both could.
  cudaStream_t sums() const { return sums_.get(); }

 private:
  using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, kernels::cuda::DestroyStream>;
  void allow_peer_access() const;
  void cut();
  Stream make_stream(int priority = 0) const;

  DevicePlace place_;
  int multiprocessors_ = 0;
  std::unique_ptr<CUgreenCtx_st, DestroyGreenContext> green_;
  Stream compute_, arrivals_, departures_, sums_;
};

}  // namespace stagecraft::cuda
