#include "kernels/cuda/clock.hpp"
#include "kernels/cuda/error.hpp"

namespace stagecraft::kernels::cuda {
namespace {

__global__ void read_clock_kernel(Tick* tick) {
  Tick now;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(now.multiprocessor));
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now.nanoseconds));
  now.cycles = clock64();
  *tick = now;
}

}  // namespace

void read_clock(Tick* tick, cudaStream_t stream) {
  read_clock_kernel<<<1, 1, 0, stream>>>(tick);
  check_launch("read_clock");
}

}  // namespace stagecraft::kernels::cuda
