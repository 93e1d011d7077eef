#include "runtime/link_profiler.hpp"

#include <algorithm>
#include <chrono>
#include <exception>
#include <span>
#include <thread>

#include "runtime/affinity.hpp"

namespace stagecraft {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t sizes[] = {1 << 8, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22};
constexpr int warm_ups = 5;
constexpr int repetitions = 40;
constexpr MessageTag tag{Lane::forward, 0, -1};

// Half of a round trip: each side waits while the other sends, as neighbours in a pipeline do. Several buffers take
// turns, as messages of a pipeline do not lie in the cache.
std::vector<double> ping(Transport& transport, int peer, std::span<std::byte> buffers, std::int64_t size) {
  std::vector<double> times;
  const auto length = static_cast<std::size_t>(size);
  const std::size_t turns = buffers.size() / length;
  for (int i = 0; i < warm_ups + repetitions; ++i) {
    const auto message = buffers.subspan(static_cast<std::size_t>(i) % turns * length, length);
    const auto start = Clock::now();
    transport.send(peer, tag, message);
    transport.receive(peer, tag, message);
    if (i >= warm_ups) times.push_back(std::chrono::duration<double>(Clock::now() - start).count() / 2);
  }
  return times;
}

void pong(Transport& transport, int peer, std::span<std::byte> buffers, std::int64_t size) {
  const auto length = static_cast<std::size_t>(size);
  const std::size_t turns = buffers.size() / length;
  for (int i = 0; i < warm_ups + repetitions; ++i) {
    const auto message = buffers.subspan(static_cast<std::size_t>(i) % turns * length, length);
    transport.receive(peer, tag, message);
    transport.send(peer, tag, message);
  }
}

std::vector<std::byte> buffers() { return std::vector<std::byte>(std::size_t{16} << 20); }

LinkProfile lead(Transport& transport, const char* kind) {
  LinkProfile link;
  link.kind = kind;
  auto memory = buffers();
  for (const std::int64_t size : sizes) {
    auto times = ping(transport, 1, memory, size);
    std::sort(times.begin(), times.end());
    const auto at = [&](std::size_t percent) { return Seconds(times[(times.size() - 1) * percent / 100]); };
    link.samples.push_back({Bytes(static_cast<double>(size)), {at(50), at(10), at(90), repetitions}});
  }
  link.fit = fit_link(link.samples);
  return link;
}

void follow(Transport& transport) {
  auto memory = buffers();
  for (const std::int64_t size : sizes) pong(transport, 0, memory, size);
}

}  // namespace

LinkProfile profile_channel(const std::vector<int>& cores) {
  ChannelNetwork network(2, {});
  LinkProfile link;
  std::exception_ptr failure;
  std::thread leader([&] {
    try {
      pin_to_core(cores.front());
      link = lead(*network.endpoint(0), "channel");
    } catch (...) {
      failure = std::current_exception();
      network.abort();
    }
  });
  std::thread follower([&] {
    try {
      pin_to_core(cores[1 % cores.size()]);
      follow(*network.endpoint(1));
    } catch (const Error&) {
      network.abort();  // the leader's error says why
    }
  });
  leader.join();
  follower.join();
  if (failure) std::rethrow_exception(failure);
  return link;
}

std::optional<LinkProfile> profile_mpi(MpiSession& mpi) {
  TransportOptions options;
  options.peer_timeout = std::chrono::hours(1);  // process 0 measures the layers first
  const auto transport = mpi.endpoint(options);
  std::byte done{};
  if (mpi.process() == 0) {
    LinkProfile link = lead(*transport, "mpi");
    for (int to = 2; to < mpi.processes(); ++to) transport->send(to, tag, std::span(&done, 1));
    return link;
  }
  if (mpi.process() == 1) {
    follow(*transport);
  } else {
    transport->receive(0, tag, std::span(&done, 1));
  }
  return {};
}

}  // namespace stagecraft
