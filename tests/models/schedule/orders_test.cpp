// The orders of the generators, each against a second formulation of its rule.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "models/error.hpp"
#include "models/schedule/checker.hpp"
#include "models/schedule/schedule.hpp"
#include "tests/models/schedule/schedules.hpp"

namespace stagecraft {
namespace {

using test::text;

using Order = std::vector<Action>;
Action act(ActionKind kind, int stage, int microbatch) { return {kind, StageId{stage}, MicrobatchId{microbatch}}; }
constexpr auto F = ActionKind::forward, B = ActionKind::backward, I = ActionKind::backward_input,
               W = ActionKind::backward_weight;

// A rank that runs a forward while fewer than `window` micro-batches wait for their backward, else a backward; split
// backwards keep the last `lag` weight gradients for later.
Order windowed(int stage, int microbatches, int window, std::optional<int> lag) {
  Order order;
  int forwards = 0, backwards = 0, weights = 0;
  while (backwards < microbatches) {
    if (forwards < microbatches && forwards - backwards < window) {
      order.push_back(act(F, stage, forwards++));
      continue;
    }
    order.push_back(act(lag ? I : B, stage, backwards++));
    if (lag && backwards - weights > *lag) order.push_back(act(W, stage, weights++));
  }
  while (lag && weights < microbatches) order.push_back(act(W, stage, weights++));
  return order;
}

TEST(OneStageARank, KeepsAWindowOfMicrobatches) {
  for (int p = 1; p <= 8; ++p) {
    for (int m = 1; m <= 32; ++m) {
      for (int r = 0; r < p; ++r) {
        const auto rank = static_cast<std::size_t>(r);
        const ScheduleShape shape{p, 1, m};
        EXPECT_EQ(make_schedule("1f1b", shape).ranks[rank], windowed(r, m, p - r, {}));
        EXPECT_EQ(make_schedule("eager-1f1b", shape).ranks[rank], windowed(r, m, 2 * (p - r) - 1, {}));
        EXPECT_EQ(make_schedule("zb-h1", shape).ranks[rank], windowed(r, m, p - r, r));
        EXPECT_EQ(make_schedule("zb-h2", shape).ranks[rank], windowed(r, m, 2 * (p - r) - 1, 2 * r));
      }
    }
  }
}

// Megatron-LM's schedule table, built as a list: group by group, in each chunk by chunk.
struct Turn {
  int chunk, microbatch;
};
std::vector<Turn> megatron_table(int chunks, int microbatches, int group) {
  std::vector<Turn> table;
  for (int first = 0; first < microbatches; first += group) {
    for (int chunk = 0; chunk < chunks; ++chunk) {
      for (int m = first; m < std::min(first + group, microbatches); ++m) table.push_back({chunk, m});
    }
  }
  return table;
}

Order megatron_rank(int p, int v, int m, int n, int r) {
  const std::vector<Turn> table = megatron_table(v, m, n);
  const std::size_t warm_up = std::min(table.size(), static_cast<std::size_t>(2 * (p - r - 1) + (v - 1) * n));
  Order order;
  for (std::size_t k = 0; k < table.size() + warm_up; ++k) {
    if (k < table.size()) order.push_back(act(F, table[k].chunk * p + r, table[k].microbatch));
    if (k < warm_up) continue;
    const Turn& turn = table[k - warm_up];
    order.push_back(act(B, (v - 1 - turn.chunk) * p + r, turn.microbatch));
  }
  return order;
}

TEST(InterleavedOneFOneB, FollowsMegatronsTableForEveryGroup) {
  int shapes = 0;
  for (int p = 1; p <= 8; ++p) {
    for (int v = 2; v <= 4; ++v) {
      for (int m = p; m <= 32; ++m) {
        for (int n = p; n <= m; ++n) {
          if (m % n != 0 && m % n < p) continue;
          ++shapes;
          const ComputeSchedule schedule = make_schedule("interleaved-1f1b", {p, v, m, n});
          EXPECT_TRUE(check(schedule).empty());
          for (int r = 0; r < p; ++r) {
            EXPECT_EQ(schedule.ranks[static_cast<std::size_t>(r)], megatron_rank(p, v, m, n, r));
          }
          if (n == p) {
            EXPECT_EQ(make_schedule("interleaved-1f1b", {p, v, m}), schedule);
          }
        }
      }
    }
  }
  EXPECT_GT(shapes, 3000);
}

// torch's formulation: the chunk follows from the number of the operation, the micro-batch is the chunk's next.
Order torch_rank(int p, int v, int m, int r, bool split) {
  const int round = m / std::max(1, m / p), total = m * v;
  const int warm_up = std::min(total, (v - 1) * round + (split ? 1 : 2) * (p - 1 - r));
  std::map<std::pair<ActionKind, int>, int> next;
  Order order;
  const auto add = [&](ActionKind kind, int chunk) {
    order.push_back(act(kind, chunk * p + r, next[std::pair(kind, chunk)]++));
  };
  const auto backward_chunk = [&](int k) { return v - 1 - k / round % v; };
  int weights = 0;
  for (int k = 0; k < total + warm_up; ++k) {
    if (k < total) add(F, k / round % v);
    if (k < warm_up) continue;
    add(split ? I : B, backward_chunk(k - warm_up));
    if (split && k - warm_up >= r) add(W, backward_chunk(weights++));
  }
  while (split && weights < total) add(W, backward_chunk(weights++));
  return order;
}

TEST(TorchsInterleavedSchedules, FollowTorchsCounters) {
  for (int p = 1; p <= 8; ++p) {
    for (int v = 1; v <= 4; ++v) {
      for (int m = 1; m <= 32; ++m) {
        if (m % std::max(1, m / p) != 0) continue;
        const ComputeSchedule one = make_schedule("interleaved-1f1b-torch", {p, v, m});
        const ComputeSchedule zero = make_schedule("interleaved-zero-bubble", {p, v, m});
        for (int r = 0; r < p; ++r) {
          const auto rank = static_cast<std::size_t>(r);
          EXPECT_EQ(one.ranks[rank], torch_rank(p, v, m, r, false));
          EXPECT_EQ(zero.ranks[rank], torch_rank(p, v, m, r, true));
        }
        if (v == 1 && m % p == 0) {
          EXPECT_EQ(zero.ranks, make_schedule("zb-h1", {p, 1, m}).ranks);
        }
        if (v > 1 && m >= p) {
          EXPECT_EQ(one.ranks, make_schedule("interleaved-1f1b", {p, v, m, m / (m / p)}).ranks);
        }
      }
    }
  }
}

TEST(TorchsInterleavedSchedules, DifferFromMegatronsWhereTheGroupsDo) {
  const auto torch = [](int m) { return make_schedule("interleaved-1f1b-torch", {4, 2, m}).ranks; };
  const auto megatron = [](int m, int n) { return make_schedule("interleaved-1f1b", {4, 2, m, n}).ranks; };
  EXPECT_EQ(torch(10), megatron(10, 5));
  EXPECT_EQ(torch(8), megatron(8, 4));
  EXPECT_NE(torch(8), megatron(8, 8));
}

TEST(LoopedBfs, SortsByDirectionThenChunkThenMicrobatch) {
  for (int p = 1; p <= 8; ++p) {
    for (int v = 1; v <= 4; ++v) {
      const ComputeSchedule schedule = make_schedule("looped-bfs", {p, v, 7});
      for (int r = 0; r < p; ++r) {
        const Order& order = schedule.ranks[static_cast<std::size_t>(r)];
        EXPECT_EQ(order.size(), static_cast<std::size_t>(2 * v * 7));
        // Stages of a rank rise with the chunk; backwards run both in reverse.
        EXPECT_TRUE(std::is_sorted(order.begin(), order.end(), [](const Action& a, const Action& b) {
          if (a.kind != b.kind) return a.kind == F;
          const auto key = [](const Action& action) { return std::pair(action.stage, action.microbatch); };
          return a.kind == F ? key(a) < key(b) : key(b) < key(a);
        }));
        for (const Action& action : order) EXPECT_EQ(action.stage.value % p, r);
      }
    }
  }
}

TEST(ZbV, RunsBothArmsOfTheV) {
  const ComputeSchedule schedule = make_schedule("zb-v", {2, 2, 3});
  EXPECT_EQ(text(schedule.ranks[0]), "0F0 0F1 0F2 3F0 3I0 3W0 3F1 3I1 3W1 0I0 0W0 3F2 3I2 3W2 0I1 0W1 0I2 0W2");
  EXPECT_EQ(text(schedule.ranks[1]), "1F0 2F0 1F1 2F1 2I0 2W0 1F2 1I0 1W0 2F2 2I1 2W1 1I1 2I2 1I2 1W1 2W2 1W2");
}

TEST(ZbV, LeavesOutTheMicrobatchesThatAFullPipelineWouldHave) {
  for (int p = 2; p <= 8; ++p) {
    const ComputeSchedule full = make_schedule("zb-v", {p, 2, 2 * p - 1});
    for (int m = 1; m < 2 * p - 1; ++m) {
      ComputeSchedule expected = full;
      expected.microbatches = m;
      for (Order& order : expected.ranks) {
        std::erase_if(order, [&](const Action& action) { return action.microbatch.value >= m; });
      }
      EXPECT_EQ(make_schedule("zb-v", {p, 2, m}), expected);
    }
  }
}

TEST(Inference, IsTheForwardsOfInterleavedOneFOneB) {
  for (int p = 1; p <= 8; ++p) {
    for (int v = 2; v <= 4; ++v) {
      for (int m = p; m <= 32; m += p) {
        ComputeSchedule expected = make_schedule("interleaved-1f1b", {p, v, m});
        for (Order& order : expected.ranks) {
          std::erase_if(order, [](const Action& action) { return action.kind != F; });
        }
        const ComputeSchedule schedule = make_schedule("inference", {p, v, m});
        EXPECT_EQ(schedule.ranks, expected.ranks);
        EXPECT_TRUE(schedule.forward_only);
      }
    }
  }
}

TEST(Inference, PutsTheRemainderIntoTheLastGroup) {
  EXPECT_EQ(text(make_schedule("inference", {2, 2, 5}).ranks[1]), "1F0 1F1 3F0 3F1 1F2 1F3 1F4 3F2 3F3 3F4");
  EXPECT_EQ(text(make_schedule("inference", {3, 1, 2}).ranks[2]), "2F0 2F1");
}

TEST(PipeDream, OrdersAStreamAsOneFOneBDoes) {
  const ComputeSchedule flushed = make_schedule("1f1b", {4, 1, 12});
  EXPECT_EQ(flushed.updates, WeightUpdates::synchronous);
  const ComputeSchedule stashed = make_schedule("pipedream", {4, 1, 12});
  EXPECT_EQ(stashed.ranks, flushed.ranks);
  EXPECT_EQ(stashed.updates, WeightUpdates::pipedream);
  EXPECT_EQ(stashed.update_group, 1);
  const ComputeSchedule buffered = make_schedule("pipedream-2bw", {4, 1, 12, 6});
  EXPECT_EQ(buffered.ranks, flushed.ranks);
  EXPECT_EQ(buffered.updates, WeightUpdates::two_buffered);
  EXPECT_EQ(buffered.update_group, 6);
  EXPECT_EQ(make_schedule("pipedream-2bw", {4, 1, 12}).update_group, 12);
}

}  // namespace
}  // namespace stagecraft
