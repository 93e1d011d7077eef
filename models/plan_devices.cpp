// Between a plan and the layout that it is a case of.
#include <algorithm>

#include "models/error.hpp"
#include "models/plan.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

// How far apart neighbours of each dimension are, by Dimension.
std::array<std::int64_t, dimension_count> strides(const ParallelLayout& layout) {
  std::array<std::int64_t, dimension_count> widths{}, result{};
  widths[static_cast<std::size_t>(Dimension::tensor)] = layout.tensor;
  widths[static_cast<std::size_t>(Dimension::context)] = layout.context;
  widths[static_cast<std::size_t>(Dimension::data)] = layout.data;
  widths[static_cast<std::size_t>(Dimension::pipeline)] = layout.pipeline;
  std::int64_t stride = 1;
  for (const Dimension dimension : layout.order) {
    result[static_cast<std::size_t>(dimension)] = stride;
    stride *= widths[static_cast<std::size_t>(dimension)];
  }
  return result;
}

ParallelLayout widths_of(const Plan& plan) {
  ParallelLayout layout;
  layout.pipeline = plan.ranks();
  layout.data = plan.replicas();
  layout.tensor = plan.layout.tensor;
  layout.context = plan.layout.context;
  return layout;
}

// Blocks of a transformer in a stage: without embedding and head.
std::int32_t blocks(const Plan& plan, const PlanStage& stage) {
  const auto layers = static_cast<std::int64_t>(plan.order.size());
  return static_cast<std::int32_t>(std::min(stage.layers.last, layers - 1) -
                                   std::max<std::int64_t>(stage.layers.first, 1));
}

}  // namespace

std::vector<std::vector<DeviceId>> devices_of(const ParallelLayout& layout) {
  const auto stride = strides(layout);
  const auto at = [&](Dimension dimension, std::int64_t index) {
    return index * stride[static_cast<std::size_t>(dimension)];
  };
  std::vector<std::vector<DeviceId>> rows;
  for (std::int32_t data = 0; data < layout.data; ++data) {
    for (std::int32_t context = 0; context < layout.context; ++context) {
      for (std::int32_t tensor = 0; tensor < layout.tensor; ++tensor) {
        auto& row = rows.emplace_back();
        const std::int64_t first =
            at(Dimension::data, data) + at(Dimension::context, context) + at(Dimension::tensor, tensor);
        for (std::int32_t rank = 0; rank < layout.pipeline; ++rank) {
          row.push_back(DeviceId{static_cast<std::int32_t>(first + at(Dimension::pipeline, rank))});
        }
      }
    }
  }
  return rows;
}

std::optional<DimensionOrder> dimension_order(const Plan& plan) {
  ParallelLayout layout = widths_of(plan);
  if (devices_of(layout) == plan.devices) return layout.order;
  std::sort(layout.order.begin(), layout.order.end());
  do {
    if (devices_of(layout) == plan.devices) return layout.order;
  } while (std::next_permutation(layout.order.begin(), layout.order.end()));
  return std::nullopt;
}

bool folds_experts(const Plan& plan) {
  return folds_experts(plan.layout.expert, plan.replicas() * std::int64_t{plan.layout.context});
}

ParallelLayout parallel_layout(const Plan& plan) {
  ParallelLayout layout = widths_of(plan);
  layout.order = dimension_order(plan).value_or(megatron_order);
  const auto names = pipeline_schedule_names();
  const auto found =
      std::find_if(names.begin(), names.end(), [&](const auto& entry) { return entry.first == plan.schedule.name; });
  if (found == names.end()) {
    throw bad_input("schedule '{}' has no step that could be priced", printable(plan.schedule.name));
  }
  layout.schedule = found->second;
  layout.virtual_stages = static_cast<std::int32_t>(plan.stages.size()) / plan.ranks();
  layout.microbatch = static_cast<std::int32_t>(plan.batch.microbatch);
  layout.microbatches = static_cast<std::int32_t>(plan.batch.microbatches);
  if (layout.virtual_stages == 1 && layout.pipeline > 1) {
    const auto end = [&](const PlanStage& stage) { return blocks(plan, stage) > 0 ? blocks(plan, stage) : no_layers; };
    layout.first_stage_layers = end(plan.stages.front());
    layout.last_stage_layers = end(plan.stages.back());
  }
  layout.recompute = plan.recompute;
  const PlanLayout& more = plan.layout;
  layout.expert = more.expert;
  layout.recomputed_layers = more.recomputed_layers;
  layout.zero = more.zero;
  layout.sequence_parallel = more.sequence_parallel;
  layout.offload_optimizer = more.offload_optimizer;
  layout.offload_activations = more.offload_activations;
  layout.overlap_gradients = more.overlap_gradients;
  layout.overlap_parameters = more.overlap_parameters;
  layout.overlap_tensor = more.overlap_tensor;
  layout.overlap_pipeline = more.overlap_pipeline;
  return layout;
}

}  // namespace stagecraft
