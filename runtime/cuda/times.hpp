// When an action ran on the device.
#pragma once

#include <optional>

#include "kernels/cuda/device.hpp"
#include "kernels/cuda/error.hpp"

namespace stagecraft::cuda {

struct Times {
  std::optional<kernels::cuda::Event> start, end;
  std::optional<kernels::cuda::Event> arrived;  // of a message: when it is there
};

inline void record(std::optional<kernels::cuda::Event>& event, cudaStream_t stream) {
  if (!event) event.emplace();
  event->record(stream);
}

// Work on the stream after this waits for what the other has been given so far, marked by `event`.
inline void join(cudaStream_t stream, cudaStream_t other, std::optional<kernels::cuda::Event>& event) {
  record(event, other);
  kernels::cuda::check(cudaStreamWaitEvent(stream, event->get(), 0), "cudaStreamWaitEvent");
}

}  // namespace stagecraft::cuda
