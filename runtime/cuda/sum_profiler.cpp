#include "runtime/cuda/sum_profiler.hpp"

#include <exception>
#include <iterator>
#include <thread>
#include <vector>

#include "models/error.hpp"
#include "runtime/statistics.hpp"
#include "runtime/transport.hpp"

namespace stagecraft::cuda {
namespace {

// Of activations up to gradients of a stage.
constexpr std::int64_t sizes[] = {1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28};

}  // namespace

LinkProfile profile_sums(const DevicePlace& first, const DevicePlace& second) {
  ChannelNetwork network(2, {});
  std::vector<std::vector<double>> times;
  std::exception_ptr failure;
  std::thread leader([&] {
    try {
      times = load_module().time_sums(*network.endpoint(0), first, sizes);
    } catch (...) {
      failure = std::current_exception();
      network.abort();
    }
  });
  std::thread follower([&] {
    try {
      load_module().time_sums(*network.endpoint(1), second, sizes);
    } catch (const Error&) {
      network.abort();  // the leader's error says why
    }
  });
  leader.join();
  follower.join();
  if (failure) std::rethrow_exception(failure);
  LinkProfile sum;
  sum.kind = "sum";
  for (std::size_t i = 0; i < std::size(sizes); ++i) {
    sum.samples.push_back({Bytes(static_cast<double>(sizes[i])), measured(times[i])});
  }
  // A ring of two takes 2 (latency + b / (2 B)).
  sum.fit = fit_link(sum.samples);
  sum.fit.latency = sum.fit.latency / 2;
  return sum;
}

}  // namespace stagecraft::cuda
