#include "models/schedule/frameworks.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "models/schedule/refusal.hpp"

namespace stagecraft {
namespace {

// One rank of DeepSpeed's pipeline engine. Time goes in steps, and neighbouring ranks exchange what they made in the
// step after.
class DeepSpeedRank {
 public:
  DeepSpeedRank(int ranks, int microbatches, int rank) : p_(ranks), m_(microbatches), r_(rank) {}

  // Micro-batch m runs forwards in step 2m + r and backwards in step 2m + 2P - 1 - r: forwards in the steps of one
  // parity, backwards in those of the other.
  std::vector<std::string> train() {
    const int buffers = std::max(2, std::min(p_ - r_, m_)), steps = 2 * (m_ + p_ - 1);
    const auto add = [&](std::string_view name, int m) { this->add(name, m, m % buffers); };
    const auto forward_in = [&](int step) { return half(step - r_); };
    const auto backward_in = [&](int step) { return half(step + r_ + 1 - 2 * p_); };
    for (int step = 0; step < steps; ++step) {
      if ((step - r_) % 2 == 0) {
        const int now = forward_in(step);
        if (r_ > 0) add("RecvActivation", now), add("SendGrad", backward_in(step - 1));
        if (is_at_an_end()) add("LoadMicroBatch", now);
        add("ForwardPass", now);
      } else {
        const int now = backward_in(step);
        if (r_ < p_ - 1) add("SendActivation", forward_in(step - 1)), add("RecvGrad", now);
        add("BackwardPass", now);
      }
    }
    for (const char* name : {"ReduceTiedGrads()", "ReduceGrads()", "OptimizerStep()"}) instructions_.emplace_back(name);
    return std::move(instructions_);
  }

  // Micro-batch m runs in step m + r. Two buffers take turns: one sends while the other receives, the even ranks'
  // sends first.
  std::vector<std::string> infer() {
    for (int step = 0; step < m_ + p_ - 1; ++step) {
      const int now = step - r_, receiving = (step + r_) % 2, sending = 1 - receiving;
      if (is_at_an_end()) add("LoadMicroBatch", now, receiving);
      if (r_ % 2 == 0 && r_ < p_ - 1) add("SendActivation", now - 1, sending);
      if (r_ > 0) add("RecvActivation", now, receiving);
      if (r_ % 2 != 0 && r_ < p_ - 1) add("SendActivation", now - 1, sending);
      add("ForwardPass", now, receiving);
    }
    return std::move(instructions_);
  }

 private:
  // Half of an even number; none of the micro-batches for the others, which belong to the other parity.
  static int half(int number) { return number % 2 == 0 ? number / 2 : -1; }
  bool is_at_an_end() const { return r_ == 0 || r_ == p_ - 1; }
  void add(std::string_view name, int microbatch, int buffer) {
    if (microbatch < 0 || microbatch >= m_) return;
    instructions_.push_back(fmt::format("{}(buffer_id={})", name, buffer));
  }

  int p_, m_, r_;
  std::vector<std::string> instructions_;
};

}  // namespace

std::vector<std::string> megatron_arguments(std::string_view name, const ScheduleShape& shape) {
  int group = 0;
  if (name == "interleaved-1f1b") {
    group = shape.group > 0 ? shape.group : shape.ranks;
  } else if (name == "interleaved-1f1b-torch" && shape.stages_per_rank > 1 && shape.microbatches >= shape.ranks) {
    group = microbatches_per_round(shape);
  } else if (name != "1f1b") {
    return {};
  }
  std::vector<std::string> words;
  const auto add = [&](const char* option, int value) {
    words.emplace_back(option);
    words.push_back(std::to_string(value));
  };
  add("--pipeline-model-parallel-size", shape.ranks);
  if (group > 0) {
    add("--num-virtual-stages-per-pipeline-rank", shape.stages_per_rank);
    add("--microbatch-group-size-per-virtual-pipeline-stage", group);
  }
  add("--micro-batch-size", 1);
  add("--global-batch-size", shape.microbatches);
  return words;
}

std::vector<std::vector<std::string>> deepspeed_instructions(std::string_view name, const ScheduleShape& shape) {
  const bool training = name == "1f1b", inference = name == "inference" && shape.stages_per_rank == 1;
  std::vector<std::vector<std::string>> ranks;
  for (int r = 0; (training || inference) && r < shape.ranks; ++r) {
    DeepSpeedRank rank(shape.ranks, shape.microbatches, r);
    ranks.push_back(training ? rank.train() : rank.infer());
  }
  return ranks;
}

}  // namespace stagecraft
