#include "planner/layout_space.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "models/cost/layer_split.hpp"
#include "models/cost/schedule_forms.hpp"
#include "models/error.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

constexpr std::int32_t most_samples = 64;         // of a micro-batch
constexpr std::int32_t most_virtual_stages = 16;  // stages of a rank
constexpr std::int32_t shortest_end = 4;          // blocks that an end stage may hold less than the others

std::vector<std::int32_t> divisors(std::int64_t number, std::int64_t limit) {
  std::vector<std::int32_t> result;
  for (std::int64_t d = 1; d <= std::min(number, limit); ++d) {
    if (number % d == 0) result.push_back(static_cast<std::int32_t>(d));
  }
  return result;
}

// `all`, or the one that is fixed.
template <class T>
std::vector<T> those(const std::optional<T>& fixed, std::vector<T> all) {
  if (!fixed) return all;
  const bool legal = std::find(all.begin(), all.end(), *fixed) != all.end();
  return legal ? std::vector<T>{*fixed} : std::vector<T>{};
}

std::vector<bool> switches(const std::optional<bool>& fixed) {
  return fixed ? std::vector<bool>{*fixed} : std::vector<bool>{false, true};
}

struct Overlap {
  bool ParallelLayout::*flag;
  std::optional<bool> LayoutChoices::*choice;
  bool (*has_effect)(const ParallelLayout&);
};

constexpr std::array<Overlap, 4> overlap_flags{
    {{&ParallelLayout::overlap_gradients, &LayoutChoices::overlap_gradients,
      [](const ParallelLayout& l) { return l.data * l.context > 1; }},
     {&ParallelLayout::overlap_parameters, &LayoutChoices::overlap_parameters,
      [](const ParallelLayout& l) { return l.zero > 0; }},
     {&ParallelLayout::overlap_tensor, &LayoutChoices::overlap_tensor,
      [](const ParallelLayout& l) { return l.tensor > 1; }},
     {&ParallelLayout::overlap_pipeline, &LayoutChoices::overlap_pipeline,
      [](const ParallelLayout& l) { return l.pipeline > 1; }}}};

std::int32_t width_of(const Widths& widths, Dimension dimension) {
  switch (dimension) {
    case Dimension::tensor:
      return widths.tensor;
    case Dimension::context:
      return widths.context;
    case Dimension::data:
      return widths.data;
    case Dimension::pipeline:
      break;
  }
  return widths.pipeline;
}

// Those wider than 1, which decide who is beside whom.
std::vector<Dimension> wide_in(const Widths& widths, const DimensionOrder& order) {
  std::vector<Dimension> list;
  for (const Dimension dimension : order) {
    if (width_of(widths, dimension) > 1) list.push_back(dimension);
  }
  return list;
}

// Megatron-LM's order where it places the same devices side by side.
DimensionOrder as_usual(const Widths& widths, const DimensionOrder& order) {
  return wide_in(widths, order) == wide_in(widths, megatron_order) ? megatron_order : order;
}

template <class T>
bool contains(const std::vector<T>& all, T value) {
  return std::find(all.begin(), all.end(), value) != all.end();
}

// Dimensions of width 1 stand nowhere in particular: first, so that one order represents all of them.
bool is_canonical(const Widths& widths, const DimensionOrder& order) {
  DimensionOrder canonical = order;
  std::stable_sort(canonical.begin(), canonical.end(), [&](Dimension a, Dimension b) {
    return (width_of(widths, a) == 1) != (width_of(widths, b) == 1) ? width_of(widths, a) == 1
           : width_of(widths, a) == 1                               ? a < b
                                                                    : false;
  });
  return canonical == order;
}

// Schedules without idle time but for their start, if ranks need not end a step together.
bool is_staggered(PipelineSchedule schedule) {
  return schedule == PipelineSchedule::zb_h2 || schedule == PipelineSchedule::zb_2p ||
         schedule == PipelineSchedule::zb_v;
}

}  // namespace

bool has_exact_form(PipelineSchedule schedule, std::int32_t ranks, std::int64_t microbatches) {
  switch (schedule) {
    case PipelineSchedule::zb_h1:
    case PipelineSchedule::zb_1p:
      return microbatches >= ranks;
    case PipelineSchedule::chimera:  // its two directions meet: one step in seven above its form
    case PipelineSchedule::v_half:   // planned for equal F, I and W, and far from its form otherwise
    case PipelineSchedule::v_min:
      return false;
    default:
      return !is_staggered(schedule) && !is_timed(schedule);
  }
}

LayoutSpace::LayoutSpace(const StepModel& model, LayoutChoices choices) : model_(&model), choices_(std::move(choices)) {
  const TrainingJob& job = model.job();
  if (!job.stage_blocks.empty()) choices_.stages = static_cast<std::int32_t>(job.stage_blocks.size());
  if (choices_.recomputed_layers == listed_layers && !choices_.pipeline) {
    choices_.pipeline = static_cast<std::int32_t>(job.recomputed_blocks.size());
  }
  if (choices_.abilities) check_abilities();
  list_microbatches();
  list_widths();
  list_shapes();
  std::vector<Widths> listed;
  listed.swap(widths_);
  for (const Widths& widths : listed) {
    std::int64_t below = 0;
    for (const std::int32_t microbatch : microbatches_of(widths)) below += points(widths, microbatch);
    below *= placements(widths);
    if (below == 0) continue;
    widths_.push_back(widths);
    points_.push_back(below);
  }
  if (widths_.empty()) explain_nothing();
  if (choices_.recomputed_layers == listed_layers) explain_recomputation();  // ranks may hold fewer blocks
}

void LayoutSpace::list_microbatches() {
  const std::int64_t batch = model_->job().global_batch;
  for (const std::int32_t data : divisors(batch, choices_.devices)) {
    if (choices_.data.value_or(data) != data) continue;
    auto sizes = those(choices_.microbatch, divisors(batch / data, choices_.microbatch.value_or(most_samples)));
    if (!sizes.empty()) microbatches_[data] = std::move(sizes);
  }
}

void LayoutSpace::list_widths() {
  const TrainingJob& job = model_->job();
  const Transformer& t = job.network;
  const std::int64_t n = choices_.devices;
  const auto layers = static_cast<std::int32_t>(std::min(t.layers, n));
  std::vector<std::int32_t> pipelines;
  for (std::int32_t p = 1; p <= layers; ++p) pipelines.push_back(p);
  const auto tensors = those(choices_.tensor, divisors(t.heads, n));
  const bool is_limited = choices_.abilities.has_value();
  const auto contexts =
      those(choices_.context, divisors(job.sequence, is_limited && !choices_.abilities->context ? 1 : n));
  const auto experts = those(choices_.expert, divisors(std::max<std::int64_t>(1, t.experts),
                                                       is_limited && !choices_.abilities->experts ? 1 : n));
  for (const std::int32_t tensor : tensors) {
    for (const std::int32_t context : contexts) {
      for (const std::int32_t pipeline : those(choices_.pipeline, pipelines)) {
        if (std::int64_t{tensor} * context * pipeline > n) break;
        for (const auto& [data, sizes] : microbatches_) {
          for (const std::int32_t expert : experts) {
            const Widths widths{tensor, context, expert, pipeline, data};
            if (widths.devices() > n || (choices_.use_all && widths.devices() < n)) continue;
            if (is_limited && !choices_.abilities->folded_experts && widths.folds_experts()) continue;
            ParallelLayout layout = base(widths, sizes.front(), widths.folds_experts(), megatron_order);
            layout.schedule = PipelineSchedule::one_f_one_b;
            if (const auto stages = static_cast<std::int32_t>(job.stage_blocks.size()); stages > pipeline) {
              layout.virtual_stages = stages / pipeline;
              layout.schedule = PipelineSchedule::looped_bfs;  // for any number of micro-batches
            }
            if (model_->refuse(layout).empty()) widths_.push_back(widths);
          }
        }
      }
    }
  }
}

std::vector<PipelineShape> LayoutSpace::list_ends(std::int32_t ranks) const {
  const auto layers = static_cast<std::int32_t>(model_->job().network.layers);
  const auto &first_choice = choices_.first_stage_layers, &last_choice = choices_.last_stage_layers;
  const bool is_fixed = first_choice || last_choice;
  if (ranks == 1 && is_fixed) return {};
  std::vector<PipelineShape> list;
  const auto add = [&](std::int32_t first, std::int32_t last) {
    list.push_back({1, PipelineSchedule::one_f_one_b, first, last});
  };
  if (!is_fixed) add(0, 0);
  if (!model_->job().stage_blocks.empty()) return list;
  const std::int32_t even = (layers + ranks - 1) / ranks;
  if (is_fixed) {
    // The other end as even as can be, or shorter.
    std::vector<std::int32_t> shorter{0};
    for (std::int32_t end = std::max(1, even - shortest_end); ranks > 2 && end <= even; ++end) shorter.push_back(end);
    for (const std::int32_t first : first_choice ? std::vector{*first_choice} : shorter) {
      for (const std::int32_t last : last_choice ? std::vector{*last_choice} : shorter) {
        ParallelLayout layout;
        layout.pipeline = ranks;
        layout.first_stage_layers = first;
        layout.last_stage_layers = last;
        if (LayerSplit(layout, model_->job()).adds_up()) add(first, last);
      }
    }
    return list;
  }
  if (ranks == 2) {
    // The one with the head, which outweighs the embedding.
    for (std::int32_t last = layers / 2 - 1; last >= std::max(1, layers / 2 - shortest_end); --last) add(0, last);
  }
  for (std::int32_t first = std::max(1, even - shortest_end); ranks > 2 && first <= even; ++first) {
    for (std::int32_t last = std::max(1, even - shortest_end); last <= even; ++last) {
      const std::int32_t middle = layers - first - last;
      // Only ends that are shorter than the rest: longer ones are never better than even ones.
      if (middle >= (ranks - 2) * std::max(first, last)) add(first, last);
    }
  }
  return list;
}

void LayoutSpace::list_shapes() {
  const auto layers = static_cast<std::int32_t>(model_->job().network.layers);
  std::map<std::int32_t, std::vector<PipelineShape>> ends;  // by ranks: of one stage a rank
  const auto ends_of = [&](std::int32_t ranks) -> const std::vector<PipelineShape>& {
    const auto [entry, is_new] = ends.try_emplace(ranks);
    if (is_new) entry->second = list_ends(ranks);
    return entry->second;
  };
  const bool has_unlike_blocks = model_->job().network.dense_layers > 0;
  const bool has_ends = choices_.first_stage_layers || choices_.last_stage_layers;
  for (const Widths& widths : widths_) {
    for (const std::int32_t microbatch : microbatches_of(widths)) {
      const std::int64_t microbatches = model_->job().global_batch / widths.data / microbatch;
      const auto [entry, is_new] = shapes_.try_emplace({widths.pipeline, microbatches});
      if (!is_new || microbatches > std::numeric_limits<std::int32_t>::max() / 2) continue;
      for (const auto& [name, schedule] : pipeline_schedule_names()) {
        if (choices_.schedule.value_or(schedule) != schedule) continue;
        // On one rank all schedules are one.
        if (widths.pipeline == 1 && schedule != choices_.schedule.value_or(PipelineSchedule::one_f_one_b)) continue;
        if (choices_.abilities && !contains(choices_.abilities->schedules, schedule)) continue;
        if (has_unlike_blocks && weight_copies(schedule) > 1) continue;
        const std::int32_t wanted = stages_per_rank_of(schedule);
        const std::int32_t most = std::min(most_virtual_stages, layers / widths.pipeline);
        const std::int32_t least = wanted > 0 ? wanted : schedule == PipelineSchedule::searched ? 1 : 2;
        for (std::int32_t v = least; v <= (wanted > 0 ? wanted : most); ++v) {
          if (choices_.virtual_stages.value_or(v) != v || v * widths.pipeline > layers || (has_ends && v > 1)) continue;
          if (choices_.stages.value_or(v * widths.pipeline) != v * widths.pipeline) continue;
          // Unlike stages on the fullest rank hold up all others, by more than the smaller bubble saves.
          const bool is_asked = choices_.virtual_stages || choices_.stages;
          if (!is_asked && most_layers(widths.pipeline, {v, schedule, 0, 0}) % v != 0) continue;
          const bool is_exact = has_exact_form(schedule, widths.pipeline, microbatches);
          if (!choices_.schedule && !is_exact && !(choices_.staggered_steps && is_staggered(schedule))) continue;
          if (!refuse_schedule(schedule, widths.pipeline, v, static_cast<std::int32_t>(microbatches)).empty()) continue;
          for (const PipelineShape& end : v == 1 ? ends_of(widths.pipeline) : std::vector<PipelineShape>(1)) {
            const PipelineShape shape{v, schedule, end.first, end.last};
            entry->second.list.push_back(shape);
            ++entry->second.by_layers[most_layers(widths.pipeline, shape)];
          }
        }
      }
    }
  }
}

std::span<const std::int32_t> LayoutSpace::microbatches_of(const Widths& widths) const {
  return microbatches_.at(widths.data);
}

std::vector<bool> LayoutSpace::sequence_parallel(const Widths& widths) const {
  const bool can = widths.tensor > 1 && model_->job().sequence % sequence_pieces(widths) == 0;
  if (widths.folds_experts())
    return those(choices_.sequence_parallel, can ? std::vector<bool>{true} : std::vector<bool>{});
  if (choices_.abilities && widths.tensor > 1) {
    return those(choices_.sequence_parallel, choices_.sequence_parallel ? std::vector<bool>{can, false}
                                             : can                      ? std::vector<bool>{true}
                                                                        : std::vector<bool>{});
  }
  return those(choices_.sequence_parallel, can ? std::vector<bool>{true, false} : std::vector<bool>{false});
}

std::vector<DimensionOrder> LayoutSpace::orders(const Widths& widths) const {
  if (choices_.order) return {*choices_.order};
  std::vector<DimensionOrder> result;
  DimensionOrder order{Dimension::tensor, Dimension::context, Dimension::data, Dimension::pipeline};
  do {
    if (!is_canonical(widths, order)) continue;
    const auto places_the_same = [&](const DimensionOrder& other) {
      return wide_in(widths, other) == wide_in(widths, order);
    };
    if (choices_.abilities &&
        std::none_of(choices_.abilities->orders.begin(), choices_.abilities->orders.end(), places_the_same))
      continue;
    result.push_back(as_usual(widths, order));
  } while (std::next_permutation(order.begin(), order.end()));
  return result;
}

const std::vector<PipelineShape>& LayoutSpace::shapes(std::int32_t pipeline, std::int64_t microbatches) const {
  return shapes_.at({pipeline, microbatches}).list;
}

std::vector<Residence> LayoutSpace::residences(const Widths& widths) const {
  std::vector<Residence> result;
  const std::int32_t most = widths.data * widths.context == 1 ? 0 : 3;
  for (std::int32_t zero = 0; zero <= most; ++zero) {
    if (choices_.zero.value_or(zero) != zero) continue;
    const Abilities* const can = choices_.abilities ? &*choices_.abilities : nullptr;
    if (can != nullptr &&
        (!contains(can->zero, zero) || (widths.pipeline > 1 && !contains(can->zero_with_pipelines, zero)) ||
         (widths.tensor > 1 && !contains(can->zero_with_tensor, zero)))) {
      continue;
    }
    for (const bool optimizer : switches(choices_.offload_optimizer)) {
      for (const bool activations : switches(choices_.offload_activations)) {
        if (can != nullptr && optimizer && !contains(can->offload_optimizer, zero)) continue;
        if (can != nullptr && activations && !can->offload_activations) continue;
        result.push_back({static_cast<std::uint8_t>(zero), optimizer, activations});
      }
    }
  }
  return result;
}

std::int32_t LayoutSpace::most_layers(std::int32_t pipeline, const PipelineShape& shape) const {
  if (!model_->job().stage_blocks.empty()) {
    ParallelLayout layout;
    layout.pipeline = pipeline;
    apply(shape, layout);
    const LayerSplit split(layout, model_->job());
    std::int32_t most = 0;
    for (std::int32_t rank = 0; rank < pipeline; ++rank) most = std::max(most, split.layers(rank));
    return most;
  }
  const auto layers = static_cast<std::int32_t>(model_->job().network.layers);
  const std::int32_t first = std::max(0, shape.first), last = std::max(0, shape.last);
  const std::int32_t middle = pipeline - (shape.first != 0 ? 1 : 0) - (shape.last != 0 ? 1 : 0);
  return std::max({first, last, middle > 0 ? (layers - first - last + middle - 1) / middle : 0});
}

std::vector<Recomputation> LayoutSpace::recomputations(const Widths& widths, std::int32_t layers,
                                                       bool offload_activations) const {
  std::vector<Recomputation> result, by_rank;
  const auto wanted = [&](Recompute mode) {
    return choices_.recompute.value_or(mode) == mode &&
           (!choices_.abilities || contains(choices_.abilities->recompute, mode));
  };
  const auto fixed = choices_.recomputed_layers;
  const bool only_all = offload_activations || (choices_.abilities && !fixed);
  if (wanted(Recompute::none) && fixed.value_or(0) == 0) result.push_back({});
  for (const Recompute mode : {Recompute::selective, Recompute::full}) {
    // A fused attention keeps nothing that could be repeated.
    if (!wanted(mode) || (mode == Recompute::selective && model_->job().fused_attention && !choices_.recompute))
      continue;
    for (std::int32_t count = only_all ? layers : 1; count <= layers; ++count) {
      if (fixed.value_or(count) == count) result.push_back({mode, count});
    }
    const bool is_listed = std::ssize(model_->job().recomputed_blocks) == widths.pipeline;
    if (widths.pipeline > 1 && !only_all && fixed.value_or(fewest_layers) < 0 &&
        (fixed != listed_layers || is_listed)) {
      by_rank.push_back({mode, fixed.value_or(fewest_layers)});
    }
  }
  result.insert(result.end(), by_rank.begin(), by_rank.end());
  return result;
}

std::int64_t LayoutSpace::recomputation_count(const Widths& widths, std::int32_t layers,
                                              bool offload_activations) const {
  if (choices_.recompute || choices_.recomputed_layers || choices_.abilities) {
    return std::ssize(recomputations(widths, layers, offload_activations));
  }
  const std::int64_t counted = offload_activations ? 1 : layers + (widths.pipeline > 1 ? 1 : 0);
  return 1 + counted * (model_->job().fused_attention ? 1 : 2);
}

std::vector<ParallelLayout> LayoutSpace::overlaps(const ParallelLayout& layout) const {
  std::vector<ParallelLayout> result{layout};
  for (const Overlap& overlap : overlap_flags) {
    if (!overlap.has_effect(layout)) continue;
    std::vector<ParallelLayout> more;
    for (ParallelLayout& each : result) {
      for (const bool on : those(choices_.*overlap.choice, std::vector<bool>{true, false})) {
        each.*overlap.flag = on;
        more.push_back(each);
      }
    }
    result = std::move(more);
  }
  return result;
}

void LayoutSpace::overlap_all(ParallelLayout& layout) const {
  for (const Overlap& overlap : overlap_flags) {
    layout.*overlap.flag = overlap.has_effect(layout) && (choices_.*overlap.choice).value_or(true);
  }
}

std::int64_t LayoutSpace::overlap_count(const Widths& widths, const Residence& residence) const {
  ParallelLayout layout = base(widths, 1, false, megatron_order);
  apply(residence, layout);
  std::int64_t count = 1;
  for (const Overlap& overlap : overlap_flags) {
    if (overlap.has_effect(layout) && !(choices_.*overlap.choice)) count *= 2;
  }
  return count;
}

ParallelLayout LayoutSpace::base(const Widths& widths, std::int32_t microbatch, bool sequence_parallel,
                                 const DimensionOrder& order) const {
  ParallelLayout layout;
  layout.tensor = widths.tensor;
  layout.context = widths.context;
  layout.expert = widths.expert;
  layout.pipeline = widths.pipeline;
  layout.data = widths.data;
  layout.microbatch = microbatch;
  layout.microbatches = static_cast<std::int32_t>(model_->job().global_batch / widths.data / microbatch);
  layout.sequence_parallel = sequence_parallel;
  layout.order = order;
  return layout;
}

void LayoutSpace::apply(const PipelineShape& shape, ParallelLayout& layout) {
  layout.virtual_stages = shape.virtual_stages;
  layout.schedule = shape.schedule;
  layout.first_stage_layers = shape.first;
  layout.last_stage_layers = shape.last;
}

void LayoutSpace::apply(const Residence& residence, ParallelLayout& layout) {
  layout.zero = residence.zero;
  layout.offload_optimizer = residence.offload_optimizer;
  layout.offload_activations = residence.offload_activations;
}

void LayoutSpace::apply(const Recomputation& recomputation, ParallelLayout& layout) {
  layout.recompute = recomputation.mode;
  layout.recomputed_layers = recomputation.mode == Recompute::none ? all_layers : recomputation.layers;
}

std::int64_t LayoutSpace::tactics(const Widths& widths, std::int32_t layers) const {
  std::int64_t sum = 0;
  for (const Residence& residence : residences(widths)) {
    sum += overlap_count(widths, residence) * recomputation_count(widths, layers, residence.offload_activations);
  }
  return sum;
}

std::int64_t LayoutSpace::points(const Widths& widths, const PipelineShape& shape) const {
  return tactics(widths, most_layers(widths.pipeline, shape));
}

std::int64_t LayoutSpace::placements(const Widths& widths) const {
  if (choices_.abilities) return std::ssize(orders(widths)) * std::ssize(sequence_parallel(widths));
  std::int64_t orders = 1, wide = 0;
  for (const std::int32_t width : {widths.tensor, widths.context, widths.pipeline, widths.data}) {
    if (width > 1) orders *= ++wide;
  }
  return (choices_.order ? 1 : orders) * std::ssize(sequence_parallel(widths));
}

std::int64_t LayoutSpace::points(const Widths& widths, std::int32_t microbatch) const {
  const Shapes& shapes = shapes_.at({widths.pipeline, model_->job().global_batch / widths.data / microbatch});
  std::int64_t sum = 0;
  for (const Residence& residence : residences(widths)) {
    std::int64_t recomputations = 0;
    for (const auto& [layers, count] : shapes.by_layers) {
      recomputations += count * recomputation_count(widths, layers, residence.offload_activations);
    }
    sum += overlap_count(widths, residence) * recomputations;
  }
  return sum;
}

std::int64_t LayoutSpace::points() const { return std::accumulate(points_.begin(), points_.end(), std::int64_t{0}); }

}  // namespace stagecraft
