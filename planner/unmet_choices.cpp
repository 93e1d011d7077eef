// LayoutSpace::explain_nothing: which of the user's choices no layout meets.
#include <algorithm>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "models/cost/schedule_forms.hpp"
#include "models/error.hpp"
#include "models/text.hpp"
#include "planner/layout_space.hpp"

namespace stagecraft {

namespace {

template <class T>
std::string names_of(const std::vector<T>& values) {
  std::vector<std::string> names;
  for (const T& value : values) {
    if constexpr (std::is_enum_v<T>) {
      names.emplace_back(name(value));
    } else {
      names.push_back(std::to_string(value));
    }
  }
  return names.empty() ? "none" : join(names, ", ");
}

}  // namespace

void LayoutSpace::check_abilities() const {
  const LayoutChoices& c = choices_;
  const Abilities& can = *c.abilities;
  const auto check = [&](std::string_view option, const auto& wanted, const auto& all) {
    if (!wanted || std::find(all.begin(), all.end(), *wanted) != all.end()) return;
    throw bad_input("{}: expected what {} has, {}, got {}", option, can.framework, names_of(all),
                    names_of(std::vector{*wanted}));
  };
  check("--schedule", c.schedule, can.schedules);
  check("--recompute", c.recompute, can.recompute);
  check("--zero", c.zero, can.zero);
  if (c.pipeline.value_or(c.stages.value_or(1)) > 1) check("--zero beside a pipeline", c.zero, can.zero_with_pipelines);
  if (c.tensor.value_or(1) > 1) check("--zero beside tensor parallelism", c.zero, can.zero_with_tensor);
  const auto forbid = [&](std::string_view option, bool is_wanted, bool is_there, std::string_view expected) {
    if (is_wanted && !is_there)
      throw bad_input("{}: expected {}, as {} has nothing else", option, expected, can.framework);
  };
  forbid("--context", c.context.value_or(1) > 1, can.context, "1");
  forbid("--expert", c.expert.value_or(1) > 1, can.experts, "1");
  forbid("--offload-optimizer", c.offload_optimizer.value_or(false), !can.offload_optimizer.empty(), "off");
  forbid("--offload-activations", c.offload_activations.value_or(false), can.offload_activations, "off");
  if (c.order && std::find(can.orders.begin(), can.orders.end(), *c.order) == can.orders.end()) {
    std::vector<std::string> orders;
    for (const DimensionOrder& order : can.orders) orders.push_back(to_string(order));
    throw bad_input("--order: expected what {} has, {}, got {}", can.framework, join(orders, ", "),
                    to_string(*c.order));
  }
}

void LayoutSpace::explain_stages() const {
  const LayoutChoices& c = choices_;
  if (c.pipeline && c.stages && *c.stages % *c.pipeline != 0) {
    throw bad_input("{}: expected a multiple of pipeline {}{}, got {}",
                    model_->job().stage_blocks.empty() ? "--stages" : "--cuts", *c.pipeline,
                    model_->job().stage_blocks.empty() ? "" : " in stages", *c.stages);
  }
  const std::int32_t stages_a_rank = c.virtual_stages.value_or(c.pipeline && c.stages ? *c.stages / *c.pipeline : 0);
  if (stages_a_rank == 0) return;
  const std::int32_t wanted = c.schedule ? stages_per_rank_of(*c.schedule) : 0;
  if (wanted > 0 && stages_a_rank != wanted) {
    throw bad_input("--schedule: {} has {} a rank, not {}", name(*c.schedule), counted(wanted, "stage"), stages_a_rank);
  }
  if (c.schedule && wanted == 0 && stages_a_rank == 1 && *c.schedule != PipelineSchedule::searched) {
    throw bad_input("--virtual-stages: expected at least 2 with {}, got 1", name(*c.schedule));
  }
  const std::int64_t stages = std::int64_t{stages_a_rank} * c.pipeline.value_or(1);
  if (stages > model_->job().network.layers) {
    throw bad_input("--virtual-stages: expected at most {} on a pipeline of {}, as there are {}, got {}",
                    model_->job().network.layers / c.pipeline.value_or(1), c.pipeline.value_or(1),
                    counted(model_->job().network.layers, "block"), stages_a_rank);
  }
  if (c.pipeline.value_or(2) == 1 && stages_a_rank > 1) {
    throw bad_input("--virtual-stages: expected 1 on a pipeline of 1, got {}", stages_a_rank);
  }
}

void LayoutSpace::explain_ends() const {
  const auto layers = static_cast<std::int32_t>(model_->job().network.layers);
  for (const auto& [option, end] : {std::pair("--first-stage-layers", choices_.first_stage_layers),
                                    std::pair("--last-stage-layers", choices_.last_stage_layers)}) {
    if (!end) continue;
    const std::int32_t given = std::max(0, *end);
    if (!model_->job().stage_blocks.empty()) {
      throw bad_input("{}: expected none beside --cuts, which places all stages, got {}", option, given);
    }
    if (choices_.pipeline.value_or(choices_.stages.value_or(2)) == 1) {
      throw bad_input("{}: expected a pipeline of 2 or more with it, got {} on 1", option, given);
    }
    if (choices_.virtual_stages.value_or(1) > 1) {
      throw bad_input("{}: expected one stage a rank with it, got {}", option, *choices_.virtual_stages);
    }
    if (given >= layers) {
      throw bad_input("{}: expected fewer than the network's {}, got {}", option, counted(layers, "block"), given);
    }
  }
  if (choices_.first_stage_layers && choices_.last_stage_layers) {
    const std::int32_t both = std::max(0, *choices_.first_stage_layers) + std::max(0, *choices_.last_stage_layers);
    const std::int32_t ranks = choices_.pipeline.value_or(choices_.stages.value_or(0));
    if (both > layers || (ranks == 2 && both != layers)) {
      throw bad_input("--last-stage-layers: expected {} beside a first stage of {} and {}, got {}",
                      ranks == 2 ? "the rest" : "at most the rest", std::max(0, *choices_.first_stage_layers),
                      counted(layers, "block"), std::max(0, *choices_.last_stage_layers));
    }
  }
}

void LayoutSpace::explain_recomputation() const {
  const std::int32_t layers = choices_.recomputed_layers.value_or(0);
  if (layers == 0) return;
  const std::string given = layers == listed_layers ? fmt::format("{}", fmt::join(model_->job().recomputed_blocks, ","))
                            : layers == fewest_layers ? "fewest"
                                                      : std::to_string(layers);
  if (choices_.recompute == Recompute::none) {
    throw bad_input("--recompute-layers: expected --recompute selective or full with it, got {} with none", given);
  }
  if (layers == listed_layers && std::ssize(model_->job().recomputed_blocks) != *choices_.pipeline) {
    throw bad_input("--recompute-layers: expected a number for each of the {}, got {}",
                    counted(*choices_.pipeline, "pipeline rank"), given);
  }
  if (layers == fewest_layers && choices_.pipeline.value_or(choices_.stages.value_or(2)) == 1) {
    throw bad_input("--recompute-layers: expected a number of blocks on a pipeline of 1, got fewest");
  }
  std::int32_t most = 0;  // blocks of a rank
  for (const auto& [key, shapes] : shapes_) {
    if (!shapes.by_layers.empty()) most = std::max(most, shapes.by_layers.rbegin()->first);
  }
  const auto& listed = model_->job().recomputed_blocks;
  const bool is_listed_over = layers == listed_layers && *std::max_element(listed.begin(), listed.end()) > most;
  if (most > 0 && (layers > most || is_listed_over)) {
    throw bad_input("--recompute-layers: expected at most the {} of a rank, got {}", counted(most, "block"), given);
  }
  if (choices_.offload_activations.value_or(false)) {
    throw bad_input("--recompute-layers: expected all blocks of a rank with --offload-activations on, got {}", given);
  }
}

void LayoutSpace::explain_sequence_parallel() const {
  const LayoutChoices& c = choices_;
  if (!c.sequence_parallel.value_or(false)) return;
  if (c.tensor.value_or(2) == 1 || c.devices == 1) {
    throw bad_input("--sequence-parallel: expected off, as a tensor-parallel width of 1 shards nothing, got on");
  }
  const std::int64_t pieces = sequence_pieces({.tensor = c.tensor.value_or(1), .context = c.context.value_or(1)});
  if (model_->job().sequence % pieces != 0) {
    throw bad_input("--sequence-parallel: expected off, as {} do not divide into {}, got on",
                    counted(model_->job().sequence, "token"), counted(pieces, "piece"));
  }
}

void LayoutSpace::explain_nothing() const {
  const auto try_one = [&](std::string_view option, auto apply) {
    ParallelLayout layout;
    layout.pipeline = std::max(1, static_cast<std::int32_t>(model_->job().stage_blocks.size()));
    layout.microbatches = static_cast<std::int32_t>(std::min<std::int64_t>(model_->job().global_batch, 1 << 30));
    apply(layout);
    const std::string refusal = model_->refuse(layout);
    if (!refusal.empty()) throw bad_input("{}: {}", option, refusal);
  };
  const LayoutChoices& c = choices_;
  const std::int64_t batch = model_->job().global_batch;
  if (batch % (std::int64_t{c.data.value_or(1)} * c.microbatch.value_or(1)) != 0) {
    throw bad_input("--global-batch: expected a multiple of replicas {} x micro-batch {}, got {}", c.data.value_or(1),
                    c.microbatch.value_or(1), batch);
  }
  if (c.tensor) try_one("--tensor", [&](ParallelLayout& l) { l.tensor = *c.tensor; });
  if (c.context) try_one("--context", [&](ParallelLayout& l) { l.context = *c.context; });
  if (c.expert && *c.expert > 1 && model_->job().network.experts % *c.expert != 0) {
    throw bad_input("--expert: expected a divisor of the network's {} experts, got {}", model_->job().network.experts,
                    *c.expert);
  }
  if (c.expert && *c.expert > 1 && model_->job().network.experts == 0) {
    throw bad_input("--expert: expected 1, as the network has no experts, got {}", *c.expert);
  }
  if (c.expert && *c.expert > 1 && c.data && c.context &&
      folds_experts(*c.expert, std::int64_t{*c.data} * *c.context)) {
    if (c.abilities && !c.abilities->folded_experts) {
      throw bad_input("--expert: expected a divisor of data x context {}, as {} has nothing else, got {}",
                      std::int64_t{*c.data} * *c.context, c.abilities->framework, *c.expert);
    }
    try_one("--expert", [&](ParallelLayout& l) {
      l.tensor = c.tensor.value_or(1), l.context = *c.context, l.data = *c.data, l.expert = *c.expert;
      l.sequence_parallel = c.sequence_parallel.value_or(true) && l.tensor > 1;
      l.microbatches = static_cast<std::int32_t>(batch / l.data);
    });
  }
  if (c.pipeline.value_or(1) > model_->job().network.layers || c.stages.value_or(1) > model_->job().network.layers) {
    throw bad_input("{}: {} for {}", c.pipeline.value_or(1) > model_->job().network.layers ? "--pipeline" : "--stages",
                    counted(std::max(c.pipeline.value_or(1), c.stages.value_or(1)), "stage"),
                    counted(model_->job().network.layers, "block"));
  }
  const std::int64_t needed =
      std::int64_t{c.tensor.value_or(1)} * c.context.value_or(1) * c.pipeline.value_or(1) * c.data.value_or(1);
  if (needed > c.devices) {
    throw infeasible("tensor {} x context {} x pipeline {} x data {} need {} devices, but {} can be used",
                     c.tensor.value_or(1), c.context.value_or(1), c.pipeline.value_or(1), c.data.value_or(1), needed,
                     c.devices);
  }
  const std::int64_t apart = c.devices / c.tensor.value_or(1) / c.pipeline.value_or(1);  // what replicas may take
  if (c.zero.value_or(0) > 0 && (apart == 1 || (c.data.value_or(2) == 1 && c.context.value_or(2) == 1))) {
    throw bad_input("--zero: expected 0 with one replica, which shares nothing out, got {}", *c.zero);
  }
  explain_ends();
  explain_stages();
  if (c.schedule && weight_copies(*c.schedule) > 1 && model_->job().network.dense_layers > 0) {
    try_one("--schedule", [&](ParallelLayout& l) { l.schedule = *c.schedule; });
  }
  if (c.schedule && c.pipeline) {
    const auto stages = c.virtual_stages.value_or(std::max(1, stages_per_rank_of(*c.schedule)));
    const std::int64_t samples = batch / c.data.value_or(1) / c.microbatch.value_or(1);
    const std::string refusal = refuse_schedule(*c.schedule, *c.pipeline, stages,
                                                static_cast<std::int32_t>(std::min<std::int64_t>(samples, 1 << 20)));
    if (!refusal.empty()) throw bad_input("--schedule: {}", refusal);
  }
  explain_recomputation();
  explain_sequence_parallel();
  throw infeasible(
      "no layout meets all options on {} with {} a step and {}: freeing one of them, such as --tensor, --data, "
      "--stages, --micro-batch or --virtual-stages, would help",
      counted(c.devices, "device"), counted(batch, "sample"), counted(model_->job().network.layers, "block"));
}

}  // namespace stagecraft
