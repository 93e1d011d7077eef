#include "models/cost/schedule_forms.hpp"

#include <gmock/gmock.h>

#include "models/schedule/checker.hpp"
#include "models/schedule/clock.hpp"

namespace stagecraft {
namespace {

constexpr PipelineSchedule all[] = {PipelineSchedule::gpipe,
                                    PipelineSchedule::one_f_one_b,
                                    PipelineSchedule::eager_one_f_one_b,
                                    PipelineSchedule::interleaved_one_f_one_b,
                                    PipelineSchedule::looped_bfs,
                                    PipelineSchedule::zb_h1,
                                    PipelineSchedule::zb_h2,
                                    PipelineSchedule::interleaved_zero_bubble,
                                    PipelineSchedule::zb_1p,
                                    PipelineSchedule::zb_2p,
                                    PipelineSchedule::zb_v,
                                    PipelineSchedule::v_half,
                                    PipelineSchedule::v_min,
                                    PipelineSchedule::chimera,
                                    PipelineSchedule::dualpipe,
                                    PipelineSchedule::dualpipe_v};

struct Shape {
  int ranks, stages_per_rank, microbatches;
};

Shape shape_of(PipelineSchedule schedule, int ranks, int microbatches) {
  const int stages = stages_per_rank_of(schedule);
  return {ranks, stages > 0 ? stages : 2, microbatches};
}

ComputeSchedule generated(PipelineSchedule schedule, const Shape& shape) {
  return make_schedule(name(schedule), {shape.ranks, shape.stages_per_rank, shape.microbatches});
}

// Whose ranks step one after the other, so that the longest span counts and not the makespan.
bool steps_in_turn(PipelineSchedule schedule) {
  return schedule == PipelineSchedule::zb_h2 || schedule == PipelineSchedule::zb_1p ||
         schedule == PipelineSchedule::zb_2p || schedule == PipelineSchedule::zb_v;
}

TEST(ScheduleForms, HoldForTheSchedulesThemselves) {
  for (const PipelineSchedule schedule : all) {
    for (const int ranks : {4, 6, 8}) {
      const Shape shape = shape_of(schedule, ranks, 4 * ranks);
      ASSERT_EQ(refuse_schedule(schedule, shape.ranks, shape.stages_per_rank, shape.microbatches), "");
      const ClockedSchedule clock = clock_schedule(generated(schedule, shape));
      const double end = steps_in_turn(schedule) ? clock.longest_span : clock.makespan;
      const double bubble = bubble_time(schedule, shape.ranks, shape.stages_per_rank, shape.microbatches, {1, 1, 1});
      EXPECT_NEAR(bubble, end - clock.busiest, 1e-9) << name(schedule) << ", " << ranks << " ranks";
    }
  }
}

TEST(ScheduleForms, HoldForTwoPhaseZeroBubbleWithFewMicrobatches) {
  for (const int microbatches : {2, 4, 6}) {
    const ClockedSchedule clock = clock_schedule(make_schedule("zb-2p", {8, 1, microbatches}));
    EXPECT_NEAR(bubble_time(PipelineSchedule::zb_2p, 8, 1, microbatches, {1, 1, 1}), clock.longest_span - clock.busiest,
                1e-9)
        << microbatches;
  }
}

TEST(ScheduleForms, CountWhatTheFullestRankKeeps) {
  for (const PipelineSchedule schedule : all) {
    // Its limit of 2P counts memory, of which the input gradient frees the larger part.
    if (schedule == PipelineSchedule::zb_2p) continue;
    for (const int ranks : {4, 6, 8}) {
      const Shape shape = shape_of(schedule, ranks, 4 * ranks);
      const std::vector<int> peaks = peak_in_flight_by_rank(generated(schedule, shape));
      double most = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        most = std::max(most, stages_in_flight(schedule, ranks, shape.stages_per_rank, shape.microbatches, rank));
      }
      EXPECT_EQ(most, *std::max_element(peaks.begin(), peaks.end())) << name(schedule) << ", " << ranks << " ranks";
    }
  }
}

TEST(ScheduleForms, KeepAtMostEveryMicrobatch) {
  for (const PipelineSchedule schedule : all) EXPECT_LE(stages_in_flight(schedule, 8, 2, 1, 0), 2) << name(schedule);
}

TEST(ScheduleForms, NeedNoTimeForOneRank) {
  for (const PipelineSchedule schedule : all) EXPECT_EQ(bubble_time(schedule, 1, 1, 8, {1, 1, 1}), 0);
}

TEST(ScheduleForms, RefuseShapesWithTheReason) {
  using enum PipelineSchedule;
  EXPECT_EQ(refuse_schedule(one_f_one_b, 4, 2, 8), "1f1b has 1 stage a rank, not 2");
  EXPECT_EQ(refuse_schedule(interleaved_one_f_one_b, 4, 1, 8),
            "interleaved-1f1b needs at least 2 stages a rank and 2 ranks");
  EXPECT_EQ(refuse_schedule(interleaved_one_f_one_b, 4, 2, 9),
            "interleaved-1f1b takes a multiple of 4 micro-batches, the ranks, not 9");
  EXPECT_EQ(refuse_schedule(chimera, 3, 1, 6), "chimera needs an even number of ranks and of micro-batches");
  EXPECT_EQ(refuse_schedule(dualpipe, 4, 1, 6), "dualpipe needs twice as many micro-batches as ranks");
}

// Qi et al. 2024 (arXiv 2401.10241), table 9, 6.2 billion parameters on 8 stages, 24 micro-batches: rates of table 5.
TEST(ScheduleForms, GiveTheBubbleRatesOfZeroBubblesTable) {
  const StageWork work{29.718, 29.444, 19.927};
  const double busy = 24 * work.total();
  const auto rate = [&](PipelineSchedule schedule) {
    const double bubble = bubble_time(schedule, 8, 1, 24, work);
    return bubble / (busy + bubble);
  };
  // The table counts messages, which the forms leave out: up to a hundredth.
  EXPECT_NEAR(rate(PipelineSchedule::one_f_one_b), 0.2347, 0.01);
  EXPECT_NEAR(rate(PipelineSchedule::zb_h1), 0.1323, 0.01);
  EXPECT_NEAR(rate(PipelineSchedule::zb_h2), 0.0698, 0.01);
  EXPECT_NEAR(rate(PipelineSchedule::zb_2p), 0.0029, 0.01);
}

}  // namespace
}  // namespace stagecraft
