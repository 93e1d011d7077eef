// Owners of what the CUDA runtime hands out: memory, streams, events. Each belongs to the device that was current when
// it was made, and each is freed on destruction.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>

namespace stagecraft::kernels::cuda {

struct FreeDeviceMemory {
  void operator()(std::byte* memory) const;
};

// Device memory, aligned to 256 bytes; contents undefined. Throws Error when there is too little.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes);
  std::byte* data() const { return memory_.get(); }
  std::size_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(memory_.get());
  }

 private:
  std::unique_ptr<std::byte, FreeDeviceMemory> memory_;
  std::size_t bytes_ = 0;
};

struct DestroyStream {
  using pointer = cudaStream_t;
  void operator()(cudaStream_t stream) const;
};

// Does not wait for, and is not waited for by, the default stream.
class Stream {
 public:
  Stream();
  cudaStream_t get() const { return stream_.get(); }
  void synchronize() const;

 private:
  std::unique_ptr<cudaStream_t, DestroyStream> stream_;
};

struct DestroyEvent {
  using pointer = cudaEvent_t;
  void operator()(cudaEvent_t event) const;
};

// With timing.
class Event {
 public:
  Event();
  cudaEvent_t get() const { return event_.get(); }
  void record(cudaStream_t stream) const;
  void synchronize() const;
  // Seconds of device time from `start` to this event; both must have happened.
  double seconds_since(const Event& start) const;

 private:
  std::unique_ptr<cudaEvent_t, DestroyEvent> event_;
};

}  // namespace stagecraft::kernels::cuda
