#include "runtime/weight_versions.hpp"

#include <algorithm>
#include <cassert>

#include "models/error.hpp"

namespace stagecraft {
namespace {

bool ends_backward(ActionKind kind) { return kind == ActionKind::backward || kind == ActionKind::backward_weight; }

// Updates of a stage that came before each micro-batch's forward there.
std::vector<int> updates_before_forward(const ComputeSchedule& schedule, StageId stage) {
  std::vector<int> updates(static_cast<std::size_t>(schedule.microbatches));
  const Placement placement(schedule);
  int backwards = 0;
  for (const Action& action : schedule.ranks[static_cast<std::size_t>(placement.ranks(stage).front().value)]) {
    if (action.stage != stage) continue;
    if (ends_backward(action.kind)) ++backwards;
    if (action.kind == ActionKind::forward) {
      updates[static_cast<std::size_t>(action.microbatch.value)] = backwards / schedule.update_group;
    }
  }
  return updates;
}

}  // namespace

std::vector<int> weight_versions(const ComputeSchedule& schedule, StageId stage) {
  assert(schedule.updates != WeightUpdates::synchronous);
  const std::vector<int> exist = updates_before_forward(schedule, stage);
  std::vector<int> needed = exist;
  if (schedule.updates == WeightUpdates::vertical_sync) needed = updates_before_forward(schedule, StageId{0});
  if (schedule.updates == WeightUpdates::two_buffered) {
    for (int m = 0; m < schedule.microbatches; ++m) {
      needed[static_cast<std::size_t>(m)] = std::max(0, m / schedule.update_group - 1);
    }
  }
  for (std::size_t m = 0; m < needed.size(); ++m) {
    if (needed[m] <= exist[m]) continue;
    throw bad_input(
        "schedule '{}': micro-batch {} needs the weights after update {} of stage {}, which has made only {} then",
        schedule.name, m, needed[m], stage.value, exist[m]);
  }
  return needed;
}

int most_versions(const ComputeSchedule& schedule, StageId stage) {
  if (schedule.updates == WeightUpdates::synchronous) return 0;
  const std::vector<int> needed = weight_versions(schedule, stage);
  std::map<int, int> uses_left;
  for (const int version : needed) ++uses_left[version];
  const Placement placement(schedule);
  int backwards = 0, most = 0;
  for (const Action& action : schedule.ranks[static_cast<std::size_t>(placement.ranks(stage).front().value)]) {
    if (action.stage != stage || !ends_backward(action.kind)) continue;
    --uses_left[needed[static_cast<std::size_t>(action.microbatch.value)]];
    const int current = ++backwards / schedule.update_group;
    const auto kept = std::count_if(uses_left.begin(), uses_left.end(),
                                    [&](const auto& uses) { return uses.first < current && uses.second > 0; });
    most = std::max(most, static_cast<int>(kept));
  }
  return most;
}

VersionedWeights::VersionedWeights(const ComputeSchedule& schedule, StageId stage, cpu::ParameterStore& parameters,
                                   MemoryPool& pool)
    : parameters_(parameters), pool_(pool), needed_(weight_versions(schedule, stage)) {}

void VersionedWeights::begin_step() {
  assert(kept_.empty());
  current_ = 0;
  uses_left_.clear();
  for (const int version : needed_) ++uses_left_[version];
}

void VersionedWeights::done(MicrobatchId microbatch) {
  const int version = needed_[static_cast<std::size_t>(microbatch.value)];
  if (--uses_left_[version] == 0) kept_.erase(version);
}

void VersionedWeights::keep_current() {
  if (uses_left_[current_] == 0) return;
  const std::span<float> values = parameters_.all_values();
  Buffer& copy = kept_[current_] = pool_.allocate(static_cast<std::int64_t>(values.size()), "older weights");
  std::copy(values.begin(), values.end(), copy.data());
}

VersionedWeights::Exchange::Exchange(VersionedWeights& weights, int version) : weights_(weights), version_(version) {
  swap();
}

VersionedWeights::Exchange::~Exchange() { swap(); }

void VersionedWeights::Exchange::swap() {
  if (version_ == weights_.current_) return;
  const std::span<float> values = weights_.parameters_.all_values();
  std::swap_ranges(values.begin(), values.end(), weights_.kept_.at(version_).data());
}

}  // namespace stagecraft
