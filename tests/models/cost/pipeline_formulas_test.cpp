#include "models/cost/pipeline_formulas.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <vector>

namespace stagecraft {
namespace {

MicrobatchTimes stage(double forward, double backward) { return {Seconds(forward), Seconds(backward)}; }
std::vector<Seconds> seconds(std::initializer_list<double> values) {
  std::vector<Seconds> times;
  for (const double value : values) times.emplace_back(value);
  return times;
}

// The oracle: every rank runs forwards and backwards in the order of the schedule, each as early as it can.
class Pipeline {
 public:
  Pipeline(std::vector<MicrobatchTimes> stages, std::vector<Seconds> hops, int microbatches)
      : stages_(std::move(stages)), hops_(std::move(hops)), microbatches_(microbatches) {
    hops_.resize(stages_.size());  // the last stage's hop is never used
  }

  // `warm_up` forwards precede the first backward on each rank: microbatches for GPipe, P-1-rank for 1F1B.
  Seconds run(bool gpipe) {
    const int p = static_cast<int>(stages_.size());
    forward_.assign(stages_.size(), std::vector<std::optional<Seconds>>(static_cast<std::size_t>(microbatches_)));
    backward_ = forward_;
    std::vector<int> done(stages_.size());
    std::vector<Seconds> clock(stages_.size());
    for (bool progress = true; progress;) {
      progress = false;
      for (int r = 0; r < p; ++r) {
        const int warm_up = std::min(microbatches_, gpipe ? microbatches_ : p - 1 - r);
        while (done[at(r)] < 2 * microbatches_ && step(r, action(done[at(r)], warm_up), clock[at(r)])) {
          ++done[at(r)];
          progress = true;
        }
      }
    }
    for (const int count : done) EXPECT_EQ(count, 2 * microbatches_);
    return *std::max_element(clock.begin(), clock.end());
  }

 private:
  struct Step {
    bool forward;
    std::size_t microbatch;
  };
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }

  Step action(int position, int warm_up) const {
    if (position < warm_up) return {true, at(position)};
    const int steady = position - warm_up;
    if (steady >= 2 * (microbatches_ - warm_up)) return {false, at(position - microbatches_)};
    return steady % 2 == 0 ? Step{true, at(warm_up + steady / 2)} : Step{false, at(steady / 2)};
  }

  bool step(int rank, Step step, Seconds& clock) {
    const std::size_t r = at(rank);
    std::optional<Seconds> ready = Seconds(0);
    if (step.forward) {
      if (r > 0 && (ready = forward_[r - 1][step.microbatch])) *ready += hops_[r - 1];
    } else if (r + 1 < stages_.size()) {
      if ((ready = backward_[r + 1][step.microbatch])) *ready += hops_[r];
    }
    if (!ready) return false;
    clock = std::max(clock, *ready) + (step.forward ? stages_[r].forward : stages_[r].backward);
    (step.forward ? forward_ : backward_)[r][step.microbatch] = clock;
    return true;
  }

  std::vector<MicrobatchTimes> stages_;
  std::vector<Seconds> hops_;
  int microbatches_;
  std::vector<std::vector<std::optional<Seconds>>> forward_, backward_;  // end, by stage, then micro-batch
};

TEST(PipelineFormulas, LatencyIsTheSumAndPeriodTheMaximum) {
  EXPECT_EQ(pipeline_latency(seconds({1, 4, 2})), Seconds(7));
  EXPECT_EQ(pipeline_period(seconds({1, 4, 2})), Seconds(4));
}

TEST(PipelineFormulas, GPipeOfEqualStagesIsTheTextbooks) {
  const std::vector<MicrobatchTimes> stages(4, stage(1, 2));
  EXPECT_EQ(gpipe_makespan(stages, {}, 8), Seconds((8 + 4 - 1) * 3));
}

TEST(PipelineFormulas, GPipeOfUnequalStagesIsAFlowShop) {
  const std::vector<MicrobatchTimes> stages{stage(1, 5), stage(3, 2), stage(2, 2)};
  EXPECT_EQ(gpipe_makespan(stages, seconds({10, 20}), 4), Seconds(6 + 9 + 3 * (3 + 5) + 2 * 30));
}

TEST(PipelineFormulas, OneFOneBOfEqualStagesTakesAsLongAsGPipe) {
  EXPECT_EQ(one_f_one_b_uniform_makespan(stage(1, 2), 4, Seconds(0), 8), Seconds(33));
}

TEST(PipelineFormulas, OneFOneBPaysARoundTripForEachBlockOfMicrobatches) {
  // P = 4: M = 1 one round trip of 6 c; M = 5 the same and 2 c for each of 3; M = 6 a second round trip.
  EXPECT_EQ(one_f_one_b_uniform_makespan(stage(1, 2), 4, Seconds(10), 1), Seconds(12 + 60));
  EXPECT_EQ(one_f_one_b_uniform_makespan(stage(1, 2), 4, Seconds(10), 5), Seconds(24 + 60 + 60));
  EXPECT_EQ(one_f_one_b_uniform_makespan(stage(1, 2), 4, Seconds(10), 6), Seconds(27 + 120));
}

TEST(PipelineFormulas, OneStageHasNoHops) {
  EXPECT_EQ(one_f_one_b_uniform_makespan(stage(1, 2), 1, Seconds(10), 6), Seconds(18));
}

TEST(PipelineFormulas, UniformFormsEqualTheScheduleStepByStep) {
  for (int p = 1; p <= 6; ++p) {
    for (int m = 1; m <= 14; ++m) {
      for (const double hop : {0, 1, 2, 5}) {
        const std::vector<MicrobatchTimes> stages(static_cast<std::size_t>(p), stage(2, 3));
        const std::vector<Seconds> hops(stages.size() - 1, Seconds(hop));
        EXPECT_EQ(Pipeline(stages, hops, m).run(false), one_f_one_b_uniform_makespan(stage(2, 3), p, Seconds(hop), m))
            << p << " stages, " << m << " micro-batches, hop " << hop;
        EXPECT_EQ(Pipeline(stages, hops, m).run(true), gpipe_makespan(stages, hops, m));
      }
    }
  }
}

TEST(PipelineFormulas, UnequalFormsHoldForRandomPipelines) {
  std::mt19937 random(1);
  const auto draw = [&](int low, int high) {
    return static_cast<double>(std::uniform_int_distribution(low, high)(random));
  };
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<MicrobatchTimes> stages(static_cast<std::size_t>(draw(1, 7)));
    for (MicrobatchTimes& s : stages) s = stage(draw(1, 20), draw(1, 40));
    std::vector<Seconds> hops(stages.size() - 1);
    for (Seconds& hop : hops) hop = Seconds(draw(0, 5));
    const int m = static_cast<int>(draw(1, 25));
    EXPECT_EQ(Pipeline(stages, hops, m).run(true), gpipe_makespan(stages, hops, m));
    const Seconds exact = Pipeline(stages, hops, m).run(false);
    EXPECT_LE(one_f_one_b_lower_bound(stages, hops, m), exact);
    EXPECT_GE(one_f_one_b_estimate(stages, hops, m), one_f_one_b_lower_bound(stages, hops, m));
    EXPECT_NEAR(one_f_one_b_estimate(stages, hops, m) / exact, 1, 0.35);
  }
}

TEST(PipelineFormulas, TheLowerBoundFollowsTheBusiestStage) {
  const std::vector<MicrobatchTimes> stages{stage(1, 2), stage(5, 5), stage(1, 1)};
  EXPECT_EQ(one_f_one_b_lower_bound(stages, seconds({1, 2}), 3), Seconds(3 + 2 + 3 * 10));
  EXPECT_EQ(one_f_one_b_lower_bound(stages, seconds({1, 100}), 3), Seconds(3 + 2 + 10 + 200 + 3 * 2));
}

TEST(PipelineFormulas, TheEstimateIsSumAndMaximumWhereNothingWaitsForMessages) {
  const std::vector<MicrobatchTimes> stages{stage(1, 2), stage(2, 4), stage(1, 2)};
  EXPECT_EQ(one_f_one_b_estimate(stages, {}, 5), Seconds(12 + 4 * 6));
}

TEST(PipelineFormulas, TheEstimateWaitsForTheMicrobatchesInFlight) {
  // One round trip of 2 stages with a hop of 6 takes 18; two micro-batches are in flight: a period of 9, not 3.
  const std::vector<MicrobatchTimes> stages(2, stage(1, 2));
  EXPECT_EQ(one_f_one_b_estimate(stages, seconds({6}), 5), Seconds(18 + 4 * 9));
}

TEST(PipelineFormulas, BubblesOfBothDefinitions) {
  EXPECT_EQ(bubble_of_total(5, 12), 0.25);
  EXPECT_EQ(bubble_of_ideal(5, 8), 0.5);
  EXPECT_EQ(bubble_of_ideal(5, 8, 2), 0.25);
  EXPECT_EQ(bubble_of_span(Seconds(8), Seconds(6)), 0.25);
}

TEST(PipelineFormulas, MegatronsFormIsOneFOneB) {
  EXPECT_EQ(megatron_batch_time(16, 2, 4, stage(1, 2)), Seconds(33));
  EXPECT_EQ(megatron_batch_time(16, 2, 4, stage(1, 2)), one_f_one_b_uniform_makespan(stage(1, 2), 4, Seconds(0), 8));
}

// Zero Bubble (arXiv 2401.10241), tables 5 and 9: p = 8, m = 24, t_f, t_b, t_w, t_comm = 18.522, 18.086, 9.337, 0.601
// ms; 1F1B bubble rate 0.2431. Their span is of the first rank, which here is the makespan.
TEST(PipelineFormulas, ReproducesAPublishedBubbleRate) {
  const Seconds span = one_f_one_b_uniform_makespan(stage(18.522, 18.086 + 9.337), 8, Seconds(0.601), 24);
  EXPECT_NEAR(bubble_of_span(span, Seconds(24 * (18.522 + 18.086 + 9.337))), 0.2431, 5e-5);
}

}  // namespace
}  // namespace stagecraft
