// How fast a GPU's multiprocessors tick: at its power limit a GPU lowers their clock, by a third and more.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <optional>

namespace stagecraft::kernels::cuda {

// What a multiprocessor's counters say when the stream gets there.
struct Tick {
  std::uint64_t nanoseconds = 0;
  std::int64_t cycles = 0;
  std::uint32_t multiprocessor = 0;
};

// `tick` is memory that the device can write.
void read_clock(Tick* tick, cudaStream_t stream);

// Mean clock between two ticks, in Hz; nothing if they are of different multiprocessors, whose counters differ.
inline std::optional<double> clock_between(const Tick& first, const Tick& last) {
  if (first.multiprocessor != last.multiprocessor || last.nanoseconds <= first.nanoseconds) return std::nullopt;
  return 1e9 * static_cast<double>(last.cycles - first.cycles) /
         static_cast<double>(last.nanoseconds - first.nanoseconds);
}

}  // namespace stagecraft::kernels::cuda
