// Plans for tests, built in code: small networks on CPU cores.
#pragma once

#include <string>
#include <vector>

#include "models/plan.hpp"

namespace stagecraft {

// Two blocks of hidden 16, two heads, a vocabulary of 32 bytes ("token & 31" texts).
Transformer tiny_gpt(bool tied = false);
// RMSNorm, rotation, SwiGLU, four query heads on two key heads.
Transformer tiny_llama(bool tied = false);

struct PlanShape {
  std::vector<std::int64_t> cuts;  // first layers of the stages after the first
  std::int64_t microbatches = 4;
  std::int64_t microbatch = 1;
  int replicas = 1;
  std::string schedule = "gpipe";
  Recompute recompute = Recompute::none;
  Optimizer optimizer = Optimizer::adamw;
  std::int64_t sequence = 8;
  int stages_per_rank = 1;  // stage s runs on rank s % ranks
  int tensor = 1;           // shards of a rank
  bool sequence_parallel = false;
};
Plan make_plan(const Transformer& transformer, const PlanShape& shape);

// The network cut into the schedule's stages, as equal as its layers allow; cuts, schedule and micro-batches of `shape`
// are ignored.
Plan make_scheduled_plan(const Transformer& transformer, const ComputeSchedule& schedule, PlanShape shape = {});

// Splits every B into I and W, the W as late as possible: what a zero-bubble schedule does in the extreme.
ComputeSchedule split_backwards(ComputeSchedule schedule);

// `bytes` letters with some structure, all below 32.
std::string sample_text(std::size_t bytes = 4000);

}  // namespace stagecraft
