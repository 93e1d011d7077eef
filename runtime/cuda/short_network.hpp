// A short network on one device of a GPU, run step by step while other slices of that GPU compute or rest: what the
// profiler measures.
//
// Four stages of one rank: embedding, a few blocks, more blocks, head. Two lengths, so that what an action takes beside
// its layers shows. Every action is a captured graph as in a run. Some micro-batches have full backwards, the others
// input and weight gradient apart.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "models/plan.hpp"
#include "runtime/trainer.hpp"

namespace stagecraft::cuda {

enum ShortStage : std::uint8_t { embedding_stage, few_blocks_stage, more_blocks_stage, head_stage, short_stages };
inline constexpr std::int64_t few_blocks = 2, more_blocks = 6;
inline constexpr double least_share_of_ends = 1.0 / 6;  // every action is measured

// Seconds, one entry a time it was done. An action is counted from the end of the one before to its own, so that what
// lies between two actions is in it.
struct ShortTimes {
  struct Stage {
    // Of the first micro-batch of a step, which replaces gradients; of the others, which add to them.
    std::vector<double> first_backward, backward;
    std::vector<double> forward, backward_input, backward_weight;
    std::vector<double> optimizer;  // beside other slices: while these update, too
  };
  Stage stages[short_stages];
  std::vector<double> around;  // what a step took without its micro-batches and optimizer steps
  std::vector<double> clock;   // mean of a step, in Hz; empty where the device does not say
};

// The network with few_blocks + more_blocks blocks, as a plan for one device of the plan's cluster. In a cluster of
// several devices, as in a pipeline, a forward of another micro-batch comes between a micro-batch's forward and its
// backward, which then finds the activations in no cache.
// `whole` gives everything but stages and schedule: network, cluster, batch.microbatch and sequence, precision, ...
Plan short_plan(Plan whole, DeviceId device);

// What a device does beside others.
struct ShortRuns {
  struct Rested {
    ShortTimes times;
    double rest = 0;        // for how long after each step, in steps
    Seconds busy, resting;  // means of a step and of a rest as it was
  };
  std::vector<ShortTimes> levels;  // by number of others that compute meanwhile, without a rest
  ShortTimes beside_forwards;      // beside all of them, which do nothing but forwards; empty: nobody there, or cores
  std::vector<Rested> rested;      // beside all of the others, with a rest of all after each step; by rising rest
};

// Whether each of the `count` micro-batches of a step, which count from 1, goes through embedding and head: `share` of
// them on average and one at least, other ones each step. REQUIRES: share from 0 to 1.
std::vector<bool> with_ends(double share, std::int64_t step, int count);

// Measures plans.front(); the devices of the others are on the same GPU. `share_of_ends`, from least_share_of_ends to
// 1: of the micro-batches that go through embedding and head, so that these take as much of the time as in a network of
// more blocks (on CPU cores 1: their backwards need what the actions left out would have made). Each of the `levels`
// levels and of the rested runs lasts until its share of the budget is spent, and a few steps at least. Ends early,
// with what it has, when `stop` is set. Throws what a device throws.
ShortRuns run_short(const std::vector<Plan>& plans, double share_of_ends, int levels, const TrainingOptions& training,
                    Seconds budget, const std::atomic<bool>* stop);

// Seconds that an all-reduce of a stage's gradients takes over the plan's two replicas of one stage, and its bytes.
struct SumTimes {
  std::vector<double> seconds;
  std::int64_t bytes = 0;
};
SumTimes run_sums(const Plan& plan, const TrainingOptions& training);

}  // namespace stagecraft::cuda
