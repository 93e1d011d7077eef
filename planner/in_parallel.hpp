// A loop on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace stagecraft {

// Calls work(i) for i below `count`, on `threads` threads, this one among them; 0: as many as the machine has.
// REQUIRES: work throws nothing.
template <class Work>
void in_parallel(unsigned threads, std::size_t count, const Work& work) {
  if (threads == 0) threads = std::max(1U, std::thread::hardware_concurrency());
  std::atomic<std::size_t> next{0};
  const auto loop = [&] {
    for (std::size_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::jthread> others;
  for (unsigned t = 1; t < std::min<std::size_t>(threads, count); ++t) others.emplace_back(loop);
  loop();
}

}  // namespace stagecraft
