#include "runtime/transport.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <thread>

namespace stagecraft {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

std::span<const std::byte> bytes(const int& number) { return std::as_bytes(std::span(&number, 1)); }
std::span<std::byte> bytes(int& number) { return std::as_writable_bytes(std::span(&number, 1)); }

MessageTag tag(int microbatch, Lane lane = Lane::forward) { return {lane, 0, microbatch}; }

template <class Body>
std::string complaint(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(ChannelNetwork, KeepsTheOrderOfALane) {
  ChannelNetwork network(2, {.capacity = 3});
  const auto first = network.endpoint(0), second = network.endpoint(1);
  for (const int i : {0, 1, 2}) first->send(1, tag(i), bytes(i));
  const int other = 9;
  first->send(1, tag(0, Lane::backward), bytes(other));
  int got = 0;
  second->receive(0, tag(0, Lane::backward), bytes(got));
  EXPECT_EQ(got, 9);
  for (const int i : {0, 1, 2}) {
    second->receive(0, tag(i), bytes(got));
    EXPECT_EQ(got, i);
  }
}

TEST(ChannelNetwork, CopiesTheMessageBeforeSendReturns) {
  ChannelNetwork network(2, {});
  const auto first = network.endpoint(0), second = network.endpoint(1);
  int number = 1, got = 0;
  first->send(1, tag(0), bytes(std::as_const(number)));
  number = 2;
  second->receive(0, tag(0), bytes(got));
  EXPECT_EQ(got, 1);
}

TEST(ChannelNetwork, ReusesTheMemoryOfMessages) {
  ChannelNetwork network(2, {});
  const auto first = network.endpoint(0), second = network.endpoint(1);
  for (int i = 0; i < 10; ++i) {
    int got = 0;
    first->send(1, tag(i), bytes(std::as_const(i)));
    second->receive(0, tag(i), bytes(got));
  }
  EXPECT_EQ(first->buffer_bytes(), 4);
}

TEST(ChannelNetwork, SendWaitsWhileTheLaneIsFull) {
  ChannelNetwork network(2, {.capacity = 1, .peer_timeout = milliseconds(20)});
  const auto first = network.endpoint(0);
  const int number = 1;
  first->send(1, tag(0), bytes(number));
  EXPECT_THAT(complaint([&] { first->send(1, tag(1), bytes(number)); }), HasSubstr("no room within 0.02 s"));
  const auto second = network.endpoint(1);
  int got = 0;
  second->receive(0, tag(0), bytes(got));
  first->send(1, tag(1), bytes(number));
}

TEST(ChannelNetwork, ReceiveEndsAfterThePeerTimeout) {
  ChannelNetwork network(2, {.peer_timeout = milliseconds(20)});
  int got = 0;
  EXPECT_THAT(complaint([&] { network.endpoint(0)->receive(1, tag(0), bytes(got)); }),
              HasSubstr("no message within 0.02 s; has its process died?"));
}

TEST(ChannelNetwork, AbortWakesWhoeverWaits) {
  ChannelNetwork network(2, {});
  std::string sender, receiver;
  std::thread first([&] {
    const auto end = network.endpoint(0);
    const int number = 1;
    sender = complaint([&] {
      for (;;) end->send(1, tag(0), bytes(number));
    });
  });
  std::thread second([&] {
    int got = 0;
    receiver = complaint([&] { network.endpoint(1)->receive(0, tag(0, Lane::control), bytes(got)); });
  });
  std::this_thread::sleep_for(milliseconds(20));
  network.abort();
  first.join();
  second.join();
  EXPECT_THAT(sender, HasSubstr("another worker failed"));
  EXPECT_THAT(receiver, HasSubstr("another worker failed"));
}

TEST(ChannelNetwork, TerminateEndsAWait) {
  const std::atomic<bool> terminate = true;
  ChannelNetwork network(2, {.terminate = &terminate});
  int got = 0;
  EXPECT_THAT(complaint([&] { network.endpoint(0)->receive(1, tag(0), bytes(got)); }), HasSubstr("told to terminate"));
}

TEST(ChannelNetwork, FindsAMessageByItsTag) {
  ChannelNetwork network(2, {.capacity = 3});
  const auto first = network.endpoint(0), second = network.endpoint(1);
  for (const int i : {3, 4, 5}) first->send(1, tag(i), bytes(i));
  int got = 0;
  for (const int i : {4, 5, 3}) {
    second->receive(0, tag(i), bytes(got));
    EXPECT_EQ(got, i);
  }
}

TEST(ChannelNetwork, RefusesAMessageOfAnotherSize) {
  ChannelNetwork network(2, {.capacity = 2});
  const auto first = network.endpoint(0), second = network.endpoint(1);
  const int number = 1;
  std::array<int, 2> two{};
  first->send(1, tag(4), bytes(number));
  EXPECT_THAT(complaint([&] { second->receive(0, tag(4), std::as_writable_bytes(std::span(two))); }),
              HasSubstr("expected the message forward of stage 0, micro-batch 4, 8 bytes"));
}

}  // namespace
}  // namespace stagecraft
