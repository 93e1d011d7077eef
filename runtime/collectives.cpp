#include "runtime/collectives.hpp"

#include <algorithm>
#include <cassert>

#include "kernels/cpu/elementwise.hpp"

namespace stagecraft {
namespace {

// Calls exchange(piece of a, piece of b) until both are through; their sizes may differ by a little.
template <class Exchange>
void in_pieces(std::span<float> a, std::span<float> b, Exchange&& exchange) {
  constexpr auto piece = static_cast<std::size_t>(collective_piece_floats);
  while (!a.empty() || !b.empty()) {
    const std::size_t from_a = std::min(a.size(), piece), from_b = std::min(b.size(), piece);
    exchange(a.first(from_a), b.first(from_b));
    a = a.subspan(from_a);
    b = b.subspan(from_b);
  }
}

// As the transport's, with the other side in their errors.
void send(Transport& transport, int to, const MessageTag& tag, std::span<const std::byte> message) {
  with_context(fmt::format("to worker {}", to), [&] { transport.send(to, tag, message); });
}

void receive(Transport& transport, int from, const MessageTag& tag, std::span<std::byte> message) {
  with_context(fmt::format("from worker {}", from), [&] { transport.receive(from, tag, message); });
}

// The members in a circle, each with all of the data in n parts.
class Ring {
 public:
  // REQUIRES: members holds this worker once.
  Ring(Transport& transport, std::span<const int> members, const MessageTag& tag, std::span<float> data)
      : transport_(transport), members_(members), tag_(tag), data_(data), n_(members.size()) {
    self_ = static_cast<std::size_t>(std::find(members.begin(), members.end(), transport.worker()) - members.begin());
    assert(self_ < n_);
  }

  // n - 1 rounds: this member sends part self + ahead, and what has arrived in the round before from then on. What
  // arrives replaces what is here or, with scratch, is added to it.
  void circulate(std::size_t ahead, std::span<float> scratch) const {
    assert(scratch.empty() || static_cast<std::int64_t>(scratch.size()) >= collective_piece_floats);
    for (std::size_t round = 0; round + 1 < n_; ++round) {
      const std::size_t outgoing = (self_ + ahead + n_ - round) % n_, incoming = (outgoing + n_ - 1) % n_;
      in_pieces(ring_part(data_, outgoing, n_), ring_part(data_, incoming, n_),
                [&](std::span<float> out, std::span<float> in) {
                  if (!out.empty()) send(transport_, members_[(self_ + 1) % n_], tag_, std::as_bytes(out));
                  if (!in.empty()) take(in, scratch);
                });
    }
  }

 private:
  void take(std::span<float> in, std::span<float> scratch) const {
    const auto arrived = scratch.empty() ? in : scratch.first(in.size());
    receive(transport_, members_[(self_ + n_ - 1) % n_], tag_, std::as_writable_bytes(arrived));
    if (!scratch.empty()) {
      kernels::cpu::accumulate(in.data(), arrived.data(), static_cast<std::int64_t>(in.size()));
    }
  }

  Transport& transport_;
  std::span<const int> members_;
  const MessageTag& tag_;
  std::span<float> data_;
  std::size_t n_, self_;
};

}  // namespace

std::span<float> ring_part(std::span<float> data, std::size_t index, std::size_t members) {
  const std::size_t first = data.size() * index / members, last = data.size() * (index + 1) / members;
  return data.subspan(first, last - first);
}

void ring_all_reduce(Transport& transport, std::span<const int> members, const MessageTag& tag, std::span<float> data,
                     std::span<float> scratch) {
  const Ring ring(transport, members, tag, data);
  // Parts travel and grow; at the end this member has the whole sum of the next one's. Then sums travel.
  ring.circulate(0, scratch);
  ring.circulate(1, {});
}

void ring_reduce_scatter(Transport& transport, std::span<const int> members, const MessageTag& tag,
                         std::span<float> data, std::span<float> scratch) {
  Ring(transport, members, tag, data).circulate(members.size() - 1, scratch);
}

void ring_all_gather(Transport& transport, std::span<const int> members, const MessageTag& tag, std::span<float> data) {
  Ring(transport, members, tag, data).circulate(0, {});
}

void pair_sum(Transport& transport, int first, int second, const MessageTag& tag, std::span<float> data,
              std::span<float> scratch) {
  const int other = transport.worker() == first ? second : first;
  in_pieces(data, {}, [&](std::span<float> piece, std::span<float>) {
    send(transport, other, tag, std::as_bytes(piece));
    const auto arrived = scratch.first(piece.size());
    receive(transport, other, tag, std::as_writable_bytes(arrived));
    // a + b and b + a are the same bits.
    kernels::cpu::accumulate(piece.data(), arrived.data(), static_cast<std::int64_t>(piece.size()));
  });
}

double sum(Transport& transport, std::span<const int> members, const MessageTag& tag, double value) {
  const auto bytes = [](double& number) { return std::as_writable_bytes(std::span(&number, 1)); };
  const int root = members.front();
  if (transport.worker() != root) {
    send(transport, root, tag, bytes(value));
    receive(transport, root, tag, bytes(value));
    return value;
  }
  for (const int member : members.subspan(1)) {
    double part = 0;
    receive(transport, member, tag, bytes(part));
    value += part;
  }
  for (const int member : members.subspan(1)) send(transport, member, tag, bytes(value));
  return value;
}

}  // namespace stagecraft
