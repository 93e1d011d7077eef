#include "cli/schedule_options.hpp"

namespace stagecraft {

ScheduleShape ScheduleOptions::shape() const {
  ScheduleShape shape{ranks, stages_per_rank.value_or(1), microbatches};
  shape.times.assign(static_cast<std::size_t>(ranks) * static_cast<std::size_t>(shape.stages_per_rank), times);
  shape.message = message;
  shape.memory_limit = memory;
  return shape;
}

void add_schedule_options(CLI::App& command, ScheduleOptions& options) {
  command.add_option("-p,--ranks", options.ranks, "Pipeline ranks")->check(CLI::Range(1, 4096))->capture_default_str();
  command.add_option("-v,--stages-per-rank", options.stages_per_rank, "Stages a rank (virtual stages, chunks)")
      ->check(CLI::Range(1, 1024));
  command.add_option("-m,--microbatches", options.microbatches, "Micro-batches a step")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  const CLI::Range positive(1e-9, 1e9), any(0.0, 1e9);
  command.add_option("--tf", options.times.forward, "Time of a forward on one stage")
      ->check(positive)
      ->capture_default_str();
  command.add_option("--ti", options.times.backward_input, "Of an input gradient")
      ->check(positive)
      ->capture_default_str();
  command.add_option("--tw", options.times.backward_weight, "Of a weight gradient; a whole backward takes both")
      ->check(positive)
      ->capture_default_str();
  command.add_option("--c", options.message, "Of a message from one rank to the next")
      ->check(any)
      ->capture_default_str();
  command
      .add_option("--memory", options.memory,
                  "Micro-batches that a rank may keep until their W; schedules that plan with it obey, others are "
                  "checked (0: no check, their own limit)")
      ->check(any)
      ->capture_default_str();
}

}  // namespace stagecraft
