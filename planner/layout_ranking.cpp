#include "planner/layout_ranking.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <tuple>

namespace stagecraft {
namespace {

auto key(const ParallelLayout& l) {
  const std::int32_t recomputed = l.recompute == Recompute::none ? 0 : l.recomputed_layers;
  return std::tuple(l.devices(), l.pipeline, l.virtual_stages, l.tensor, l.context, l.expert, l.data, l.microbatch,
                    l.schedule, l.recompute, recomputed, l.zero, l.offload_optimizer, l.offload_activations,
                    !l.overlap_gradients, !l.overlap_parameters, !l.overlap_tensor, !l.overlap_pipeline,
                    !l.sequence_parallel, l.first_stage_layers, l.last_stage_layers, l.order);
}

// Sums that differ in the order of addition only must tie: to 40 bits, some 1e-12. Half of the last of them is added,
// and the 13 behind it are cut; infinity stays.
double rounded(double value) {
  constexpr std::uint64_t cut = (std::uint64_t{1} << 13) - 1;
  return std::bit_cast<double>((std::bit_cast<std::uint64_t>(value) + (cut + 1) / 2) & ~cut);
}

double time_of(const JudgedLayout& judged) { return rounded(judged.estimate.time.value()); }
double memory_of(const JudgedLayout& judged) { return rounded(judged.estimate.memory.total()); }

}  // namespace

LayoutScore score_of(LayoutObjective objective, const ParallelLayout& layout, double time, double memory) {
  time = rounded(time);
  memory = rounded(memory);
  switch (objective) {
    case LayoutObjective::time:
      return {time, 0, memory};
    case LayoutObjective::cost:
      return {time * static_cast<double>(layout.devices()), 0, memory};
    case LayoutObjective::memory:
      break;
  }
  return {memory, 0, time};
}

LayoutScore score_of(LayoutObjective objective, const JudgedLayout& judged) {
  const ParallelLayout& layout = judged.layout;
  LayoutScore score = score_of(objective, layout, judged.estimate.time.value(), judged.estimate.memory.total());
  score.offloads = (layout.offload_optimizer ? 1 : 0) + (layout.offload_activations ? 1 : 0);
  return score;
}

bool is_before(LayoutObjective objective, const JudgedLayout& a, const JudgedLayout& b) {
  const LayoutScore of_a = score_of(objective, a), of_b = score_of(objective, b);
  if (of_a != of_b) return of_a < of_b;
  return key(a.layout) < key(b.layout);
}

bool same_candidate(const ParallelLayout& a, const ParallelLayout& b) {
  const auto widths = [](const ParallelLayout& l) {
    return std::tuple(l.tensor, l.context, l.expert, l.pipeline, l.data, l.microbatch, l.virtual_stages, l.schedule);
  };
  return widths(a) == widths(b);
}

const JudgedLayout* LayoutRanking::same_as(const ParallelLayout& layout) const {
  const auto same = std::find_if(best_.begin(), best_.end(),
                                 [&](const JudgedLayout& other) { return same_candidate(other.layout, layout); });
  return same == best_.end() ? nullptr : &*same;
}

void LayoutRanking::add(const JudgedLayout& judged) {
  const auto better = [this](const JudgedLayout& a, const JudgedLayout& b) { return is_before(objective_, a, b); };
  const auto same = std::find_if(best_.begin(), best_.end(), [&](const JudgedLayout& other) {
    return same_candidate(other.layout, judged.layout);
  });
  if (same != best_.end()) {
    if (!better(judged, *same)) return;
    best_.erase(same);
  }
  best_.insert(std::upper_bound(best_.begin(), best_.end(), judged, better), judged);
  if (best_.size() > keep_) best_.pop_back();
}

LayoutScore LayoutRanking::threshold() const {
  return best_.size() < keep_ ? LayoutScore{} : score_of(objective_, best_.back());
}

bool LayoutFront::covers(double time, double memory) const { return covers(time, memory, tolerance_); }

bool LayoutFront::covers(double time, double memory, double tolerance) const {
  time = rounded(time * (1 + tolerance));
  memory = rounded(memory * (1 + tolerance));
  // The slowest of those at least as fast is the smallest of them.
  const auto after = std::upper_bound(points_.begin(), points_.end(), time,
                                      [](double bound, const JudgedLayout& point) { return bound < time_of(point); });
  if (after == points_.begin()) return false;
  const JudgedLayout& best = *std::prev(after);
  return memory_of(best) < memory || (memory_of(best) == memory && time_of(best) < time);
}

void LayoutFront::add(const JudgedLayout& judged) {
  if (!covers(time_of(judged), memory_of(judged))) insert(judged);
}

void LayoutFront::merge(const LayoutFront& other) {
  for (const JudgedLayout& judged : other.points_) {
    if (!covers(time_of(judged), memory_of(judged), 0)) insert(judged);
  }
}

void LayoutFront::insert(const JudgedLayout& judged) {
  const double time = time_of(judged), memory = memory_of(judged);
  const auto equal = std::find_if(points_.begin(), points_.end(), [&](const JudgedLayout& point) {
    return time_of(point) == time && memory_of(point) == memory;
  });
  if (equal != points_.end()) {
    if (is_before(LayoutObjective::time, judged, *equal)) *equal = judged;
    return;
  }
  std::erase_if(points_,
                [&](const JudgedLayout& point) { return time_of(point) >= time && memory_of(point) >= memory; });
  points_.insert(std::upper_bound(points_.begin(), points_.end(), judged,
                                  [](const JudgedLayout& a, const JudgedLayout& b) { return time_of(a) < time_of(b); }),
                 judged);
}

}  // namespace stagecraft
