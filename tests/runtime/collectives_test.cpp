#include "runtime/collectives.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <thread>

namespace stagecraft {
namespace {

constexpr MessageTag tag{Lane::gradient, 0, -1};

// Runs body(transport) for each worker in a thread of its own.
void run_workers(int workers, const std::function<void(Transport&)>& body) {
  ChannelNetwork network(workers, {.capacity = 1, .peer_timeout = std::chrono::seconds(20)});
  std::vector<std::thread> threads;
  for (int worker = 0; worker < workers; ++worker) {
    threads.emplace_back([&, worker] { body(*network.endpoint(worker)); });
  }
  for (std::thread& thread : threads) thread.join();
}

class RingAllReduce : public testing::TestWithParam<int> {};

TEST_P(RingAllReduce, SumsOverTheMembersForAnySize) {
  const int workers = GetParam();
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{5}, std::size_t{1000},
                                 static_cast<std::size_t>(3 * collective_piece_floats + 1)}) {
    std::vector<int> members;
    for (int i = 0; i < workers; ++i) members.push_back(i);
    run_workers(workers, [&](Transport& transport) {
      std::vector<float> data(size), scratch(collective_piece_floats);
      for (std::size_t i = 0; i < size; ++i)
        data[i] = static_cast<float>(transport.worker() + 1) * static_cast<float>(i % 100);
      ring_all_reduce(transport, members, tag, data, scratch);
      const int sum = workers * (workers + 1) / 2;
      for (std::size_t i = 0; i < size; ++i)
        ASSERT_EQ(data[i], static_cast<float>(sum) * static_cast<float>(i % 100)) << i;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Workers, RingAllReduce, testing::Values(1, 2, 3, 5));

TEST(RingAllReduceBits, AreTheSameOnEveryMember) {
  std::vector<std::vector<float>> results(3);
  run_workers(3, [&](Transport& transport) {
    std::vector<float> data(1000), scratch(collective_piece_floats);
    for (std::size_t i = 0; i < data.size(); ++i)
      data[i] = 1.0F / static_cast<float>(i + 7 * static_cast<std::size_t>(transport.worker()) + 1);
    ring_all_reduce(transport, std::vector{2, 0, 1}, tag, data, scratch);
    results[static_cast<std::size_t>(transport.worker())] = data;
  });
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST_P(RingAllReduce, IsAScatterAndAGather) {
  const int workers = GetParam();
  std::vector<int> members;
  for (int i = 0; i < workers; ++i) members.push_back(i);
  run_workers(workers, [&](Transport& transport) {
    const auto self = static_cast<std::size_t>(transport.worker()), n = members.size();
    std::vector<float> data(1000), scratch(collective_piece_floats);
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>((self + 1) * i);
    const std::size_t sum = n * (n + 1) / 2;
    ring_reduce_scatter(transport, members, tag, data, scratch);
    const auto part = ring_part(data, self, n);
    const auto first = static_cast<std::size_t>(part.data() - data.data());
    for (std::size_t i = 0; i < part.size(); ++i) {
      ASSERT_EQ(part[i], static_cast<float>(sum * (first + i)));
    }
    ring_all_gather(transport, members, tag, data);
    for (std::size_t i = 0; i < data.size(); ++i) ASSERT_EQ(data[i], static_cast<float>(sum * i));
  });
}

TEST(PairSum, GivesBothTheSum) {
  run_workers(3, [&](Transport& transport) {
    if (transport.worker() == 1) return;
    std::vector<float> data(static_cast<std::size_t>(collective_piece_floats) + 3,
                            transport.worker() == 0 ? 1.0F : 10.0F);
    std::vector<float> scratch(collective_piece_floats);
    pair_sum(transport, 0, 2, tag, data, scratch);
    for (const float value : data) ASSERT_EQ(value, 11.0F);
  });
}

TEST(Sum, AddsOverTheMembers) {
  run_workers(4, [&](Transport& transport) {
    EXPECT_EQ(sum(transport, std::vector{0, 1, 2, 3}, tag, transport.worker() + 1), 10);
  });
}

}  // namespace
}  // namespace stagecraft
