#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <vector>

#include "runtime/transport.hpp"

namespace stagecraft {
namespace {

using Clock = std::chrono::steady_clock;

struct Message {
  MessageTag tag;
  std::vector<std::byte> content;
};

// What one worker sent to another on one lane. Emptied messages keep their memory for the next send.
struct Queue {
  std::deque<Message> waiting;
  std::vector<std::vector<std::byte>> spare;
};

}  // namespace

// What one worker receives, from everybody.
struct ChannelNetwork::Mailbox {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Queue> queues;  // [from * lane_count + lane]
};

class ChannelEndpoint : public Transport {
 public:
  ChannelEndpoint(ChannelNetwork& network, int worker) : network_(network), worker_(worker) {}

  int worker() const override { return worker_; }
  int workers() const override { return network_.workers_; }
  bool shared_clock() const override { return true; }
  bool one_process() const override { return true; }
  std::int64_t buffer_bytes() const override { return buffer_bytes_; }

  void check_running() const override {
    if (network_.aborted_) throw device_error("another worker failed");
    const std::atomic<bool>* terminate = network_.options_.terminate;
    if (terminate != nullptr && *terminate) throw device_error("told to terminate while waiting");
  }

  void send(int to, const MessageTag& tag, std::span<const std::byte> content) override {
    ChannelNetwork::Mailbox& box = network_.mailboxes_[static_cast<std::size_t>(to)];
    Queue& queue = box.queues[queue_index(worker_, tag.lane)];
    Message message{tag, {}};
    {
      std::unique_lock lock(box.mutex);
      wait(
          lock, box, [&] { return static_cast<int>(queue.waiting.size()) < network_.options_.capacity; }, "no room");
      if (!queue.spare.empty()) {
        message.content = std::move(queue.spare.back());
        queue.spare.pop_back();
      }
    }
    // Copied outside the lock: others may use the mailbox meanwhile. This thread alone adds to this queue.
    if (message.content.capacity() < content.size()) {
      buffer_bytes_ += static_cast<std::int64_t>(content.size() - message.content.capacity());
    }
    message.content.assign(content.begin(), content.end());
    {
      const std::lock_guard lock(box.mutex);
      queue.waiting.push_back(std::move(message));
    }
    box.changed.notify_all();
  }

  void receive(int from, const MessageTag& tag, std::span<std::byte> content) override {
    ChannelNetwork::Mailbox& box = network_.mailboxes_[static_cast<std::size_t>(worker_)];
    Queue& queue = box.queues[queue_index(from, tag.lane)];
    Message message;
    {
      std::unique_lock lock(box.mutex);
      auto found = queue.waiting.end();
      const auto arrived = [&] {
        found =
            std::find_if(queue.waiting.begin(), queue.waiting.end(), [&](const Message& m) { return m.tag == tag; });
        return found != queue.waiting.end();
      };
      wait(lock, box, arrived, "no message");
      message = std::move(*found);
      queue.waiting.erase(found);
    }
    check_arrival(tag, content.size(), message.tag, message.content.size());
    std::memcpy(content.data(), message.content.data(), content.size());
    {
      const std::lock_guard lock(box.mutex);
      queue.spare.push_back(std::move(message.content));
    }
    box.changed.notify_all();
  }

 private:
  static std::size_t queue_index(int from, Lane lane) {
    return static_cast<std::size_t>(from) * lane_count + static_cast<std::size_t>(lane);
  }

  template <class Condition>
  void wait(std::unique_lock<std::mutex>& lock, ChannelNetwork::Mailbox& box, Condition&& condition,
            const char* missing) {
    const auto deadline = Clock::now() + network_.options_.peer_timeout;
    for (;;) {
      check_running();
      if (condition()) return;
      const auto now = Clock::now();
      if (now >= deadline) throw peer_silent(missing, network_.options_.peer_timeout);
      // A signal handler can set `terminate` but not notify, hence the short naps.
      box.changed.wait_until(lock, std::min(deadline, now + std::chrono::milliseconds(100)));
    }
  }

  ChannelNetwork& network_;
  int worker_;
  std::int64_t buffer_bytes_ = 0;
};

ChannelNetwork::ChannelNetwork(int workers, const TransportOptions& options)
    : options_(options), mailboxes_(new Mailbox[static_cast<std::size_t>(workers)]), workers_(workers) {
  for (int worker = 0; worker < workers; ++worker) {
    mailboxes_[static_cast<std::size_t>(worker)].queues.resize(static_cast<std::size_t>(workers) * lane_count);
  }
}

ChannelNetwork::~ChannelNetwork() = default;

std::unique_ptr<Transport> ChannelNetwork::endpoint(int worker) {
  return std::make_unique<ChannelEndpoint>(*this, worker);
}

void ChannelNetwork::abort() {
  aborted_ = true;
  for (int worker = 0; worker < workers_; ++worker) {
    Mailbox& box = mailboxes_[static_cast<std::size_t>(worker)];
    // Taken once so that nobody is between its check of the flag and its wait.
    { const std::lock_guard lock(box.mutex); }
    box.changed.notify_all();
  }
}

}  // namespace stagecraft
