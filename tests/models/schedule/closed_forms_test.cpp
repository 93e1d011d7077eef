// Makespans, spans and peaks of the generated schedules against their closed forms, over the whole range that each form
// is stated for, with random integer times, so that equality is exact.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "models/schedule/checker.hpp"
#include "models/schedule/clock.hpp"
#include "models/schedule/schedule.hpp"

namespace stagecraft {
namespace {

constexpr int max_ranks = 8, max_chunks = 4, max_microbatches = 32, draws = 4;

// Integer times of one stage, the same on all stages.
class Draw {
 public:
  int from(int low, int high) { return std::uniform_int_distribution(low, high)(random_); }
  StageTimes times() { return {1.0 * from(1, 9), 1.0 * from(1, 9), 1.0 * from(1, 9)}; }
  // Weight gradients no longer than the others: the zero-bubble forms' condition.
  StageTimes split_times() {
    StageTimes times = this->times();
    times.backward_weight = from(1, static_cast<int>(std::min(times.forward, times.backward_input)));
    return times;
  }

 private:
  std::mt19937 random_{1};
};

double backward(const StageTimes& times) { return times.backward_input + times.backward_weight; }
double whole(const StageTimes& times) { return times.forward + backward(times); }

ClockedSchedule run(const ComputeSchedule& schedule, const StageTimes& times, double message = 0) {
  return clock_schedule(schedule, std::vector(static_cast<std::size_t>(schedule.stages), times), message);
}

std::string name_of(const ScheduleShape& shape) {
  std::ostringstream text;
  text << "P=" << shape.ranks << " V=" << shape.stages_per_rank << " M=" << shape.microbatches << " N=" << shape.group;
  return text.str();
}

// Calls visit(P, V, M) for all up to the limits above.
template <class Visit>
void for_each_shape(int chunks, const Visit& visit) {
  for (int p = 1; p <= max_ranks; ++p) {
    for (int v = 1; v <= chunks; ++v) {
      for (int m = 1; m <= max_microbatches; ++m) visit(p, v, m);
    }
  }
}

void expect_peaks(const ComputeSchedule& schedule, KeptUntil until, const auto& expected) {
  const std::vector<int> peaks = peak_in_flight_by_rank(schedule, until);
  for (int r = 0; r < static_cast<int>(peaks.size()); ++r) {
    EXPECT_EQ(peaks[static_cast<std::size_t>(r)], expected(r))
        << schedule.name << " P=" << peaks.size() << " S=" << schedule.stages << " M=" << schedule.microbatches
        << " rank " << r;
  }
}

TEST(GPipe, IsAFlowShopOfUnequalStages) {
  Draw draw;
  for_each_shape(1, [&](int p, int, int m) {
    std::vector<StageTimes> times;
    double forwards = 0, backwards = 0, longest_forward = 0, longest_backward = 0;
    for (int s = 0; s < p; ++s) {
      times.push_back(draw.times());
      forwards += times.back().forward;
      backwards += backward(times.back());
      longest_forward = std::max(longest_forward, times.back().forward);
      longest_backward = std::max(longest_backward, backward(times.back()));
    }
    const ComputeSchedule schedule = make_schedule("gpipe", {p, 1, m});
    EXPECT_EQ(clock_schedule(schedule, times).makespan,
              forwards + backwards + (m - 1) * (longest_forward + longest_backward));
    const StageTimes equal = draw.times();
    const double c = draw.from(0, 9);
    EXPECT_EQ(run(schedule, equal, c).makespan, (m + p - 1) * whole(equal) + 2 * (p - 1) * c);
    expect_peaks(schedule, KeptUntil::weight_gradient, [&](int) { return m; });
  });
}

TEST(OneFOneB, PaysARoundTripForEveryBlockOfMicrobatches) {
  Draw draw;
  for_each_shape(1, [&](int p, int, int m) {
    const ComputeSchedule schedule = make_schedule("1f1b", {p, 1, m});
    const StageTimes times = draw.times();
    const double c = draw.from(0, 12);
    const int hops = m == 1 ? 2 * (p - 1) : 2 * (p - 1) * (1 + (m - 2) / p) + 2 * ((m - 2) % p);
    EXPECT_EQ(run(schedule, times, c).makespan, (m + p - 1) * whole(times) + (p > 1 ? hops * c : 0));
    expect_peaks(schedule, KeptUntil::weight_gradient, [&](int r) { return std::min(m, p - r); });
  });
}

TEST(EagerOneFOneB, PaysTheLatencyOnce) {
  Draw draw;
  for_each_shape(1, [&](int p, int, int m) {
    const ComputeSchedule schedule = make_schedule("eager-1f1b", {p, 1, m});
    for (int i = 0; i < draws; ++i) {
      const StageTimes times = draw.times();
      const double c = draw.from(0, static_cast<int>(whole(times)) / 2);
      EXPECT_EQ(run(schedule, times, c).makespan, (m + p - 1) * whole(times) + 2 * (p - 1) * c);
    }
    expect_peaks(schedule, KeptUntil::weight_gradient, [&](int r) { return std::min(m, 2 * (p - r) - 1); });
  });
}

TEST(InterleavedOneFOneB, DividesTheBubbleByItsChunksForEveryGroup) {
  Draw draw;
  const auto* kind = std::find_if(schedule_kinds().data(), schedule_kinds().data() + schedule_kinds().size(),
                                  [](const ScheduleKind& each) { return each.name == "interleaved-1f1b"; });
  for_each_shape(max_chunks, [&](int p, int v, int m) {
    for (int n = p; n <= m; ++n) {
      const ScheduleShape shape{p, v, m, n};
      if (!kind->refuse(shape).empty()) continue;
      const ComputeSchedule schedule = kind->generate(shape);
      const StageTimes times = draw.times();
      EXPECT_EQ(run(schedule, times).makespan, (m * v + p - 1) * whole(times)) << name_of(shape);
      if (m % n != 0) continue;
      expect_peaks(schedule, KeptUntil::weight_gradient,
                   [&](int r) { return std::min(m * v, 2 * (p - 1 - r) + (v - 1) * n + 1); });
      if (n != p || p == 1) continue;
      const double c = draw.from(0, static_cast<int>(std::min(times.forward, backward(times))));
      EXPECT_EQ(run(schedule, times, c).makespan, (m * v + p - 1) * whole(times) + 2 * (p * v - 1) * c)
          << name_of(shape) << " c=" << c;
    }
  });
}

TEST(InterleavedOneFOneBTorch, HasTheSameMakespanFromAsManyMicrobatchesAsRanks) {
  Draw draw;
  for_each_shape(max_chunks, [&](int p, int v, int m) {
    if (m < p || m % (m / p) != 0) return;
    const StageTimes times = draw.times();
    const ComputeSchedule schedule = make_schedule("interleaved-1f1b-torch", {p, v, m});
    EXPECT_EQ(run(schedule, times).makespan, (m * v + p - 1) * whole(times)) << p << " " << v << " " << m;
  });
  const auto units = [](int m) { return run(make_schedule("interleaved-1f1b-torch", {4, 2, m}), {1, 1, 1}).makespan; };
  EXPECT_EQ(units(2), 27);
  EXPECT_EQ(units(3), 30);
  EXPECT_EQ(units(6), 45);
  EXPECT_EQ(units(10), 69);
  EXPECT_EQ(units(15), 99);
}

TEST(LoopedBfs, WaitsForRoundTripsOnlyWithFewMicrobatches) {
  Draw draw;
  int with_latency = 0;
  for_each_shape(max_chunks, [&](int p, int v, int m) {
    const ComputeSchedule schedule = make_schedule("looped-bfs", {p, v, m});
    const int slots = m >= p ? m * v + p - 1 : (v - 1) * p + m + p - 1;
    for (int i = 0; i < draws; ++i) {
      const StageTimes times = draw.times();
      EXPECT_EQ(run(schedule, times).makespan, slots * whole(times));
      const double c = draw.from(0, 9);
      if ((m - p) * std::min(times.forward, backward(times)) < p * c) continue;
      ++with_latency;
      EXPECT_EQ(run(schedule, times, c).makespan, slots * whole(times) + 2 * (p - 1) * c);
    }
    expect_peaks(schedule, KeptUntil::weight_gradient, [&](int) { return m * v; });
  });
  EXPECT_GT(with_latency, 500);
}

TEST(ZbH1, FillsAThirdOfTheBubbleWithWeightGradients) {
  Draw draw;
  for_each_shape(1, [&](int p, int, int m) {
    const ComputeSchedule schedule = make_schedule("zb-h1", {p, 1, m});
    expect_peaks(schedule, KeptUntil::input_gradient, [&](int r) { return std::min(m, p - r); });
    expect_peaks(schedule, KeptUntil::weight_gradient, [&](int) { return std::min(m, p); });
    for (int i = 0; i < draws; ++i) {
      const StageTimes times = draw.split_times();
      const double head = times.forward + times.backward_input;
      if (m < p) {
        EXPECT_EQ(run(schedule, times).makespan, (m + p - 1) * head + times.backward_weight);
        continue;
      }
      const double makespan = m * whole(times) + (p - 1) * (head - times.backward_weight);
      EXPECT_EQ(run(schedule, times).makespan, makespan);
      if ((m > p && m < 2 * p) || p == 1) continue;
      const double c = draw.from(0, static_cast<int>(times.backward_weight) / 2);
      EXPECT_EQ(run(schedule, times, c).makespan, makespan + (4 * (p - 1) - (m == p ? 2 : 0)) * c)
          << p << " " << m << " c=" << c;
    }
  });
}

TEST(ZbH2, LeavesNoGapInARanksSpan) {
  Draw draw;
  for_each_shape(1, [&](int p, int, int m) {
    const ComputeSchedule schedule = make_schedule("zb-h2", {p, 1, m});
    expect_peaks(schedule, KeptUntil::input_gradient, [&](int r) { return std::min(m, 2 * (p - r) - 1); });
    expect_peaks(schedule, KeptUntil::weight_gradient, [&](int) { return std::min(m, 2 * p - 1); });
    if (m < 2 * p - 1) return;
    for (int i = 0; i < draws; ++i) {
      const double f = draw.from(1, 9), w = draw.from(1, static_cast<int>(f));
      const StageTimes transformer{f, 2 * f - w, w};
      const double span = m * whole(transformer) + (p - 1) * (3 * f - 3 * w);
      EXPECT_EQ(run(schedule, transformer).longest_span, span);
      const double c = draw.from(0, static_cast<int>(f));
      EXPECT_EQ(run(schedule, transformer, c).longest_span, span + 2 * (p - 1) * c);
      EXPECT_EQ(run(schedule, {f, f, f}).longest_span, 3 * m * f);
      EXPECT_EQ(run(schedule, {f, f, f}).makespan, (3 * m + p - 1) * f);
      EXPECT_EQ(run(schedule, {f, f, f}).span_bubble(), 0);
    }
  });
}

TEST(InterleavedZeroBubble, HasTheBubbleOfZbH1PerChunk) {
  Draw draw;
  for_each_shape(max_chunks, [&](int p, int v, int m) {
    if (m % p != 0) return;
    const ComputeSchedule schedule = make_schedule("interleaved-zero-bubble", {p, v, m});
    expect_peaks(schedule, KeptUntil::weight_gradient, [&](int) { return p * v; });
    for (int i = 0; i < draws; ++i) {
      const StageTimes times = draw.split_times();
      EXPECT_EQ(run(schedule, times).makespan,
                m * v * whole(times) + (p - 1) * (times.forward + times.backward_input - times.backward_weight));
    }
  });
}

TEST(ZbV, HasNoBubbleWithTheMemoryOfOneFOneB) {
  for_each_shape(1, [&](int p, int, int m) {
    if (m < 2 * p - 1) return;
    const ComputeSchedule schedule = make_schedule("zb-v", {p, 2, m});
    EXPECT_EQ(run(schedule, {3, 3, 3}).longest_span, 6 * m * 3);
    EXPECT_EQ(run(schedule, {3, 3, 3}).makespan, (6 * m + p - 1) * 3);
    expect_peaks(schedule, KeptUntil::weight_gradient, [&](int) { return std::min(2 * m, 2 * p); });
  });
}

TEST(Inference, FillsThePipelineOnce) {
  Draw draw;
  for_each_shape(max_chunks, [&](int p, int v, int m) {
    const ComputeSchedule schedule = make_schedule("inference", {p, v, m});
    const StageTimes times = draw.times();
    const int slots = m >= p ? m * v + p - 1 : (v - 1) * p + m + p - 1;
    const ClockedSchedule clock = run(schedule, times);
    EXPECT_EQ(clock.makespan, slots * times.forward);
    // The first result is out after one pass, unless its group is also the one that takes the remainder.
    const int wait = p < m && m < 2 * p ? (v - 1) * (m - p) : 0;
    const auto& last = schedule.ranks.back();
    const auto first_result =
        std::find(last.begin(), last.end(), Action{ActionKind::forward, StageId{p * v - 1}, MicrobatchId{0}});
    EXPECT_EQ(clock.spans.back()[static_cast<std::size_t>(first_result - last.begin())].end,
              (v * p + wait) * times.forward);
    if (v == 1) {
      const double c = draw.from(0, 9);
      EXPECT_EQ(run(schedule, times, c).makespan, slots * times.forward + (p - 1) * c);
    }
    expect_peaks(schedule, KeptUntil::weight_gradient, [](int) { return 0; });
  });
}

TEST(PipeDream, EndsAMicrobatchEveryPeriodOfTheSlowestStage) {
  Draw draw;
  for (int p = 1; p <= max_ranks; ++p) {
    std::vector<StageTimes> times;
    double period = 0;
    for (int s = 0; s < p; ++s) {
      times.push_back(draw.times());
      period = std::max(period, whole(times.back()));
    }
    const auto makespan = [&](int m) { return clock_schedule(make_schedule("pipedream", {p, 1, m}), times).makespan; };
    EXPECT_EQ(makespan(1200) - makespan(600), 600 * period) << p;
  }
}

// Table 5 of Zero Bubble (arXiv 2401.10241), bubble rates, from the stage times of its Table 9.
TEST(ZeroBubbleTable5, FollowsFromTheMeasuredTimesOfTable9) {
  std::ifstream file(std::filesystem::path(PROJECT_FOLDER) / "validation" / "zero_bubble_stage_times.csv");
  ASSERT_TRUE(file) << "validation/zero_bubble_stage_times.csv";
  std::string line;
  std::getline(file, line);
  ASSERT_TRUE(
      line.starts_with("id,source,provenance,model,n_stages,n_microbatches,micro_batch,T_F_ms,T_B_ms,T_W_ms,"
                       "T_comm_ms,bubble_1F1B,bubble_1F1B_I,bubble_ZB_H1,bubble_ZB_H2,"));
  int rows = 0;
  while (std::getline(file, line)) {
    std::vector<std::string> cells;
    std::istringstream row(line);
    for (std::string cell; std::getline(row, cell, ',');) cells.push_back(cell);
    ASSERT_GE(cells.size(), 15U) << line;
    const auto number = [&](std::size_t column) { return std::stod(cells[column]); };
    const ScheduleShape shape{std::stoi(cells[4]), 1, std::stoi(cells[5])};
    const StageTimes times{number(7), number(8), number(9)};
    const double work = shape.microbatches * whole(times);
    const auto expect = [&](const char* name, std::size_t column) {
      const double cost = run(make_schedule(name, shape), times, number(10)).longest_span;
      EXPECT_NEAR((cost - work) / cost, number(column), 0.5e-4) << cells[0] << " " << name;
    };
    expect("1f1b", 11);
    expect("zb-h1", 13);
    expect("zb-h2", 14);
    ++rows;
  }
  EXPECT_EQ(rows, 8);
}

}  // namespace
}  // namespace stagecraft
