#include "planner/width_search.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "models/cost/schedule_forms.hpp"

namespace stagecraft {
namespace {

// The part of a step that ZeRO and offloading leave as it is; recomputation and offloading only add to it.
double time_anywhere(const StepTerms& terms) {
  return terms.compute + terms.recompute + terms.bubble + terms.tensor + terms.pipeline + terms.context + terms.expert;
}

}  // namespace

void FoundLayouts::merge(const FoundLayouts& other, bool with_front) {
  for (const JudgedLayout& judged : other.ranking.best()) ranking.add(judged);
  for (const JudgedLayout& judged : other.misses.best()) misses.add(judged);
  if (with_front) front.merge(other.front);
  counts += other.counts;
}

WidthSearch::WidthSearch(const LayoutSpace& space, const LayoutSearchOptions& options, const FoundLayouts& known)
    : space_(space), model_(space.model()), options_(options), found_(known) {
  found_.counts = {};
}

FoundLayouts WidthSearch::run(const Widths& widths, const std::vector<ResidenceBound>& bounds, std::int64_t points) {
  const double capacity = model_.machine().device.memory.value();
  if (std::all_of(bounds.begin(), bounds.end(), [&](const auto& bound) { return bound.memory > capacity; })) {
    found_.counts.points += points;
    found_.counts.too_large += points;
    return std::move(found_);
  }
  widths_ = &widths;
  residences_ = space_.residences(widths);
  for (const std::int32_t microbatch : space_.microbatches_of(widths)) {
    const std::int64_t below = space_.points(widths, microbatch);
    for (const bool sequence : space_.sequence_parallel(widths)) {
      for (const DimensionOrder& order : space_.orders(widths)) {
        found_.counts.points += below;
        place(space_.base(widths, microbatch, sequence, order), below);
      }
    }
  }
  return std::move(found_);
}

// Whether nothing within these bounds can get into the result.
bool WidthSearch::is_hopeless(const ParallelLayout& layout, double time, double memory) const {
  // Rounding matters near the threshold only.
  constexpr double near = 1e-10;
  if (options_.objective == LayoutObjective::time && !options_.front) {
    const double last = found_.ranking.threshold().first;
    if (time > last * (1 + near)) return true;
    if (time < last * (1 - near)) return false;
  }
  const LayoutScore bound = score_of(options_.objective, layout, time, memory);
  return bound > found_.ranking.threshold() && (!options_.front || found_.front.covers(time, memory));
}

// The same whatever the residence; `time` is that of all of them.
bool WidthSearch::all_hopeless(const ParallelLayout& layout, double time,
                               const std::vector<ResidenceBound>& bounds) const {
  if (bounds.empty()) return is_hopeless(layout, time, 0);
  return std::all_of(bounds.begin(), bounds.end(), [&](const ResidenceBound& bound) {
    return is_hopeless(layout, time + bound.optimizer, bound.memory);
  });
}

void WidthSearch::place(ParallelLayout layout, std::int64_t below) {
  space_.overlap_all(layout);
  const Shard shard = model_.shard(layout);
  const double layers = static_cast<double>(model_.job().network.layers) / layout.pipeline;
  const double busy =
      layout.microbatches * layers * (computation(shard.mean_block) + inner_communication(shard.mean_block));
  std::vector<ResidenceBound> bounds;
  if (!only_time()) {
    for (const Residence& residence : residences_) bounds.push_back(residence_bound(model_, layout, shard, residence));
  }
  if (all_hopeless(layout, with_room(busy), bounds)) {
    found_.counts.slower += below;
    return;
  }
  for (const PipelineShape& shape : space_.shapes(layout.pipeline, layout.microbatches)) {
    LayoutSpace::apply(shape, layout);
    const Tactics& below_shape = tactics(space_.most_layers(layout.pipeline, shape));
    const double time = with_room(busy + bubble(layout, shard.mean_block));
    if (all_hopeless(layout, time, bounds)) {
      found_.counts.slower += below_shape.points;
    } else {
      search_shape(layout, shard, below_shape, bounds, time);
    }
  }
}

// Of equal stages without recomputation; unequal ones and recomputation only add to it.
double WidthSearch::bubble(const ParallelLayout& layout, const LayerShard& block) const {
  const double layers = static_cast<double>(model_.job().network.layers) / static_cast<double>(layout.stages());
  const StageWork stage{
      layers * (block.forward + block.tensor_forward + block.context_forward + block.expert_forward),
      layers * (block.backward_input + block.tensor_backward + block.context_backward + block.expert_backward),
      layers * block.backward_weight};
  return bubble_time(layout.schedule, layout.pipeline, layout.virtual_stages, layout.microbatches, stage);
}

WidthSearch::Choices WidthSearch::choices(std::int32_t layers, bool offload_activations) const {
  Choices choices;
  for (const Recomputation& each : space_.recomputations(*widths_, layers, offload_activations)) {
    (each.layers < 0 ? choices.by_rank : choices.counted).push_back(each);
  }
  return choices;
}

const WidthSearch::Tactics& WidthSearch::tactics(std::int32_t layers) {
  const auto at = static_cast<std::size_t>(layers);
  if (tactics_.size() <= at) tactics_.resize(at + 1);
  Tactics& tactics = tactics_[at];
  if (tactics.points > 0) return tactics;
  tactics = {choices(layers, false), choices(layers, true), 0};
  for (const Residence& residence : residences_) {
    const Choices& listed = residence.offload_activations ? tactics.offloaded : tactics.here;
    tactics.points += space_.overlap_count(*widths_, residence) * listed.size();
  }
  return tactics;
}

// ZeRO, offloading and recomputation of one shape, which takes at least `time`.
void WidthSearch::search_shape(ParallelLayout layout, const Shard& shard, const Tactics& tactics,
                               const std::vector<ResidenceBound>& bounds, double time) {
  if (is_timed(layout.schedule)) return search_timed(layout, shard, tactics);
  std::int64_t left = tactics.points;
  bool is_first = true;
  // From ZeRO 1 on each stage takes at least as long as the one before, and from ZeRO 2 on at least as long with
  // offloaded activations. By offload_optimizer: whether the last one without them takes too long, and whether one
  // fits.
  std::array<bool, 2> is_slow{}, has_room{};
  for (std::size_t i = 0; i < residences_.size(); ++i) {
    const Residence& residence = residences_[i];
    const Choices& listed = residence.offload_activations ? tactics.offloaded : tactics.here;
    const std::int64_t here = space_.overlap_count(*widths_, residence) * listed.size();
    if (here == 0) continue;
    bool& slow = is_slow[residence.offload_optimizer ? 1 : 0];
    bool& room = has_room[residence.offload_optimizer ? 1 : 0];
    if (residence.zero >= 2 && room && residence.offload_activations) {
      found_.counts.dominated += here;
      left -= here;
      continue;
    }
    if ((slow && residence.zero >= 2) ||
        (!bounds.empty() && is_hopeless(layout, time + bounds[i].optimizer, bounds[i].memory))) {
      found_.counts.slower += here;
      left -= here;
      continue;
    }
    LayoutSpace::apply(residence, layout);
    space_.overlap_all(layout);
    const JudgedLayout least = judge(layout, shard, Recomputation{});
    // What does not depend on where weights and optimizer are, once for all of them.
    if (std::exchange(is_first, false)) {
      time = with_room(time_anywhere(least.estimate.terms));
      if (only_time() && is_hopeless(layout, time, 0)) {
        found_.counts.slower += left;
        return;
      }
    }
    left -= here;
    if (only_time() && residence.zero >= 1 && !residence.offload_activations) {
      slow = is_hopeless(layout, with_room(least.estimate.time.value()), 0);
      room = room || (least.estimate.fits && !listed.counted.empty() && listed.counted.front().mode == Recompute::none);
    }
    if (residence.offload_activations) {
      search_offloaded(least, shard, listed, here);
    } else {
      search_residence(least, shard, listed, here);
    }
  }
}

// Whether waiting grows or shrinks with recomputation only the schedule's clock knows: each is judged, most promising
// first, but for those that do not fit or are too slow even if no rank ever waited.
void WidthSearch::search_timed(ParallelLayout layout, const Shard& shard, const Tactics& tactics) {
  LayoutCounts& counts = found_.counts;
  std::vector<JudgedLayout> hopeful;
  for (const Residence& residence : residences_) {
    LayoutSpace::apply(residence, layout);
    space_.overlap_all(layout);
    const Choices& listed = residence.offload_activations ? tactics.offloaded : tactics.here;
    std::optional<JudgedLayout> too_large;
    const std::size_t before = hopeful.size();
    for (const auto* list : {&listed.counted, &listed.by_rank}) {
      for (const Recomputation& recomputation : *list) {
        LayoutSpace::apply(recomputation, layout);
        const JudgedLayout least{layout, model_.least_estimate(layout, shard)};
        if (least.estimate.fits) {
          hopeful.push_back(least);
        } else {
          too_large = least;
        }
      }
    }
    const std::int64_t points = space_.overlap_count(*widths_, residence) * listed.size();
    const std::int64_t fitting = std::ssize(hopeful) - static_cast<std::int64_t>(before);
    counts.too_large += listed.size() - fitting;
    counts.dominated += points - listed.size();
    if (too_large && fitting == 0 && score_of(LayoutObjective::memory, *too_large) < found_.misses.threshold()) {
      found_.misses.add({too_large->layout, model_.estimate(too_large->layout, shard)});
    }
  }
  std::stable_sort(hopeful.begin(), hopeful.end(),
                   [](const JudgedLayout& a, const JudgedLayout& b) { return a.estimate.time < b.estimate.time; });
  for (const JudgedLayout& least : hopeful) {
    const double time = with_room(least.estimate.time.value()), memory = with_room(least.estimate.memory.total());
    const JudgedLayout* const same = options_.front ? nullptr : found_.ranking.same_as(least.layout);
    const bool is_beaten = same != nullptr && score_of(options_.objective, least.layout, time, memory) >
                                                  score_of(options_.objective, *same);
    if (is_beaten || is_hopeless(least.layout, time, memory)) {
      ++counts.slower;
    } else {
      add({least.layout, model_.estimate(least.layout, shard)});
      ++counts.judged;
    }
  }
}

// `least`: with nothing recomputed, a point or not.
void WidthSearch::search_residence(const JudgedLayout& least, const Shard& shard, const Choices& choices,
                                   std::int64_t points) {
  LayoutCounts& counts = found_.counts;
  std::span<const Recomputation> counted = choices.counted;
  const bool is_point = !counted.empty() && counted.front().mode == Recompute::none;
  const double time = least.estimate.time.value();
  std::int64_t judged = is_point ? 1 : 0;
  if (is_point) counted = counted.subspan(1);
  if (is_point && least.estimate.fits) add(least);
  const auto count = [&](std::int64_t LayoutCounts::*cut) {
    counts.judged += judged;
    counts.*cut += points - judged;
  };
  if (only_time() && is_hopeless(least.layout, time, 0)) return count(&LayoutCounts::slower);
  // Everything else takes at least as long; so where this fits and only time counts, it is the best.
  if (only_time() && is_point && least.estimate.fits) return count(&LayoutCounts::dominated);
  const JudgedLayout smallest = choices.size() == judged
                                    ? least
                                    : judge(least.layout, shard, (counted.empty() ? choices.by_rank : counted).back());
  if (!smallest.estimate.fits) {
    found_.misses.add(smallest);
    return count(&LayoutCounts::too_large);
  }
  if (is_hopeless(least.layout, time, with_room(smallest.estimate.memory.total()))) {
    return count(&LayoutCounts::slower);
  }
  judged += judge_all(least.layout, shard, choices.by_rank);
  judged += only_time() ? judge_fewest(least.layout, shard, counted) : judge_all(least.layout, shard, counted);
  count(&LayoutCounts::dominated);
}

// What is recomputed need not be moved: neither is sure to be faster.
void WidthSearch::search_offloaded(const JudgedLayout& least, const Shard& shard, const Choices& choices,
                                   std::int64_t points) {
  JudgedLayout smallest = least;
  for (const Recomputation& recomputation : choices.counted) {
    if (recomputation.mode != Recompute::none) smallest = judge(least.layout, shard, recomputation);
    if (smallest.estimate.fits) add(smallest);
  }
  if (!smallest.estimate.fits) found_.misses.add(smallest);
  found_.counts.judged += std::ssize(choices.counted);
  found_.counts.dominated += points - std::ssize(choices.counted);
}

std::int64_t WidthSearch::judge_all(const ParallelLayout& layout, const Shard& shard,
                                    std::span<const Recomputation> recomputations) {
  for (const Recomputation& recomputation : recomputations) {
    const JudgedLayout judged = judge(layout, shard, recomputation);
    if (judged.estimate.fits) add(judged);
  }
  return std::ssize(recomputations);
}

// Of each mode only the fewest blocks with which the layout fits, by bisection: more never need more memory. How many
// were judged.
std::int64_t WidthSearch::judge_fewest(const ParallelLayout& layout, const Shard& shard,
                                       std::span<const Recomputation> recomputations) {
  std::int64_t judged = 0;
  for (auto mode = recomputations.begin(); mode != recomputations.end();) {
    const auto end =
        std::find_if(mode, recomputations.end(), [&](const Recomputation& other) { return other.mode != mode->mode; });
    JudgedLayout fitting = judge(layout, shard, *(end - 1));
    ++judged;
    if (fitting.estimate.fits) {
      for (auto least = mode, most = end - 1; least != most; ++judged) {
        const auto middle = least + (most - least) / 2;
        const JudgedLayout tried = judge(layout, shard, *middle);
        if (tried.estimate.fits) {
          fitting = tried;
          most = middle;
        } else {
          least = middle + 1;
        }
      }
      add(fitting);
    }
    mode = end;
  }
  return judged;
}

JudgedLayout WidthSearch::judge(ParallelLayout layout, const Shard& shard, const Recomputation& recomputation) const {
  LayoutSpace::apply(recomputation, layout);
  return {layout, model_.estimate(layout, shard)};
}

void WidthSearch::add(const JudgedLayout& judged) {
  found_.ranking.add(judged);
  if (options_.front) found_.front.add(judged);
}

}  // namespace stagecraft
