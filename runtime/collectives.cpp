#include "runtime/collectives.hpp"

#include <algorithm>
#include <cassert>

#include "kernels/cpu/elementwise.hpp"

namespace stagecraft {
namespace {

// Part `index` of `parts` nearly equal ones.
std::span<float> part(std::span<float> data, std::size_t index, std::size_t parts) {
  const std::size_t first = data.size() * index / parts, last = data.size() * (index + 1) / parts;
  return data.subspan(first, last - first);
}

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

}  // namespace

void ring_all_reduce(Transport& transport, std::span<const int> members, const MessageTag& tag, std::span<float> data,
                     std::span<float> scratch) {
  const std::size_t n = members.size();
  if (n < 2) return;
  assert(static_cast<std::int64_t>(scratch.size()) >= collective_piece_floats);
  const auto self =
      static_cast<std::size_t>(std::find(members.begin(), members.end(), transport.worker()) - members.begin());
  assert(self < n);
  const int next = members[(self + 1) % n], previous = members[(self + n - 1) % n];
  // First rounds: parts travel and grow; at the end this member has the whole sum of one. Second: sums travel.
  for (std::size_t round = 0; round < 2 * (n - 1); ++round) {
    const std::size_t outgoing = (self + 2 * n - round) % n, incoming = (self + 2 * n - round - 1) % n;
    in_pieces(part(data, outgoing, n), part(data, incoming, n), [&](std::span<float> out, std::span<float> in) {
      if (!out.empty()) send(transport, next, tag, std::as_bytes(out));
      if (in.empty()) return;
      const auto arrived = round < n - 1 ? scratch.first(in.size()) : in;
      receive(transport, previous, tag, std::as_writable_bytes(arrived));
      if (round < n - 1) kernels::cpu::accumulate(in.data(), arrived.data(), static_cast<std::int64_t>(in.size()));
    });
  }
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
