// Small spaces of layouts, and random points of them.
#pragma once

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "models/cluster/cluster.hpp"
#include "planner/layout_space.hpp"

namespace stagecraft {

struct LayoutCase {
  std::string name;
  int layers = 6;
  int experts = 0;
  double memory = 80e9;  // bytes of a device
  bool fused = true;
  LayoutChoices choices;
  bool halves = false;                                                  // a narrow port between the two nodes
  bool sums = false;                                                    // FrameworkConstants::pipelined_sums
  std::vector<std::int32_t> stage_blocks = {}, recomputed_blocks = {};  // by hand
  int dense_layers = 0;  // with them the network has latent attention and a shared expert, too
};

inline StepModel model_of(const LayoutCase& c) {
  TrainingJob job;
  job.network = *load_network(c.dense_layers > 0 ? "deepseek-v2"
                              : c.experts > 0    ? "mixtral-8x7b"
                                                 : "gpt3-1.3b")
                     .transformer;
  job.network.layers = c.layers;
  job.network.experts = c.experts;
  job.network.experts_per_token = std::min<std::int64_t>(c.experts, job.network.experts_per_token);
  job.network.dense_layers = c.dense_layers;
  job.global_batch = 12;
  job.sequence = 2048;
  job.fused_attention = c.fused;
  job.stage_blocks = c.stage_blocks;
  job.recomputed_blocks = c.recomputed_blocks;
  Machine machine = machine_of(load_cluster("dgx-a100:2"));
  machine.device.memory = Bytes(c.memory);
  machine.framework.pipelined_sums = c.sums ? 1 : 0;
  if (c.halves) {
    // Below one switch a node each.
    machine.levels.push_back(machine.levels.back());
    machine.levels[1].devices = 8;
    machine.levels[2].bandwidth = 1e9;
  }
  return {job, machine};
}

// Visits points of the space at random.
template <class Visit>
void sample(const LayoutSpace& space, const Visit& visit) {
  std::mt19937 random(1);
  const auto pick = [&](std::size_t size) { return std::uniform_int_distribution<std::size_t>(0, size - 1)(random); };
  for (int i = 0; i < 2000; ++i) {
    const Widths& widths = space.widths()[pick(space.widths().size())];
    const auto sizes = space.microbatches_of(widths);
    const auto flags = space.sequence_parallel(widths);
    const auto orders = space.orders(widths);
    ParallelLayout layout =
        space.base(widths, sizes[pick(sizes.size())], flags[pick(flags.size())], orders[pick(orders.size())]);
    const auto& shapes = space.shapes(layout.pipeline, layout.microbatches);
    if (shapes.empty()) continue;
    const PipelineShape& shape = shapes[pick(shapes.size())];
    LayoutSpace::apply(shape, layout);
    const auto residences = space.residences(widths);
    LayoutSpace::apply(residences[pick(residences.size())], layout);
    visit(layout, space.recomputations(widths, space.most_layers(layout.pipeline, shape), layout.offload_activations));
  }
}

}  // namespace stagecraft
