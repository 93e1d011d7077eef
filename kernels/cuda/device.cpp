#include "kernels/cuda/device.hpp"

#include "kernels/cuda/error.hpp"

namespace stagecraft::kernels::cuda {

// A destructor may run while a failure is being reported; a second one has nothing to add.
void FreeDeviceMemory::operator()(std::byte* memory) const { static_cast<void>(cudaFree(memory)); }
void DestroyStream::operator()(cudaStream_t stream) const { static_cast<void>(cudaStreamDestroy(stream)); }
void DestroyEvent::operator()(cudaEvent_t event) const { static_cast<void>(cudaEventDestroy(event)); }

Buffer::Buffer(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  void* memory = nullptr;
  STAGECRAFT_CUDA_CHECK(cudaMalloc(&memory, bytes));
  memory_.reset(static_cast<std::byte*>(memory));
}

Stream::Stream() {
  cudaStream_t stream = nullptr;
  STAGECRAFT_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  stream_.reset(stream);
}

void Stream::synchronize() const { STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(stream_.get())); }

Event::Event() {
  cudaEvent_t event = nullptr;
  STAGECRAFT_CUDA_CHECK(cudaEventCreate(&event));
  event_.reset(event);
}

void Event::record(cudaStream_t stream) const { STAGECRAFT_CUDA_CHECK(cudaEventRecord(event_.get(), stream)); }
void Event::synchronize() const { STAGECRAFT_CUDA_CHECK(cudaEventSynchronize(event_.get())); }

double Event::seconds_since(const Event& start) const {
  float milliseconds = 0.0F;
  STAGECRAFT_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, start.get(), get()));
  return static_cast<double>(milliseconds) * 1e-3;
}

}  // namespace stagecraft::kernels::cuda
