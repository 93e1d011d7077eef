// The planner's two targets: the exact partition of a 126-layer network over 64 unlike devices (at most 0.1 s), and the
// whole search for Llama 3.1 405B on 512 H100 (at most 1 s).
#include <benchmark/benchmark.h>

#include <memory>
#include <numeric>
#include <random>

#include "models/cost/roofline.hpp"
#include "models/network/layer_graph.hpp"
#include "planner/cut_costs.hpp"
#include "planner/cut_graph.hpp"
#include "planner/partition.hpp"
#include "planner/planner.hpp"

namespace stagecraft {
namespace {

// 126 layers of three kinds on 64 devices of 8 types, each with its own link: nothing alike, so nothing to shortcut.
struct Unlike {
  static constexpr int layers = 126, devices = 64, types = 8;
  LayerGraph graph;
  CutGraph cuts;
  CutCosts costs;

  Unlike() {
    std::mt19937 random(1);
    std::uniform_real_distribution<double> spread(0.5, 1.5);
    for (int i = 0; i < layers; ++i) {
      Layer layer;
      layer.name = std::to_string(i);
      boost::add_vertex(layer, graph);
      if (i > 0) boost::add_edge(static_cast<LayerId>(i - 1), static_cast<LayerId>(i), Tensor{{1e6, 0, 0}}, graph);
    }
    std::vector<std::vector<LayerCost>> prices(types);
    for (int type = 0; type < types; ++type) {
      const double speed = spread(random);
      for (int i = 0; i < layers; ++i) {
        LayerCost cost;
        cost.forward = Seconds(1e-3 * speed * spread(random));
        cost.backward_input = cost.forward * spread(random);
        cost.backward_weight = cost.forward * spread(random);
        cost.weights = Bytes(1e9);
        cost.stash = Bytes(1e8);
        prices[static_cast<std::size_t>(type)].push_back(cost);
      }
    }
    cuts = linear_cuts(graph);
    std::vector<int> class_of(layers);
    std::iota(class_of.begin(), class_of.end(), 0);
    costs = cut_costs(cuts, graph, class_of, prices, Workload{});
  }

  PartitionProblem problem(Objective objective, std::int64_t microbatches) const {
    std::mt19937 random(2);
    std::uniform_real_distribution<double> spread(0.5, 1.5);
    PartitionProblem problem{cuts, costs, {}, microbatches, objective, 1, 0};
    for (int s = 0; s < devices; ++s) {
      StageSlot slot;
      slot.type = static_cast<int>(random() % types);
      slot.memory = 80e9;
      slot.in_flight = devices - s;
      slot.hop = {Seconds(5e-6), BytesPerSecond(50e9 * spread(random))};
      problem.slots.push_back(slot);
    }
    return problem;
  }
};

void partition(benchmark::State& state, Objective objective, std::int64_t microbatches) {
  const Unlike example;
  const PartitionProblem problem = example.problem(objective, microbatches);
  std::optional<Partition> best;
  for (auto _ : state) benchmark::DoNotOptimize(best = best_partition(problem));
  state.counters["step_s"] = best ? best->closed_form : 0;
  state.counters["optimal"] = best && best->optimal ? 1 : 0;
}
// With few micro-batches the fill of the pipeline counts more than its slowest stage, and fewer partitions are out
// early.
BENCHMARK_CAPTURE(partition, gpipe_126_layers_64_devices_M256, Objective::gpipe, 256)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(partition, gpipe_126_layers_64_devices_M8, Objective::gpipe, 8)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(partition, 1f1b_126_layers_64_devices_M256, Objective::one_f_one_b, 256)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(partition, 1f1b_126_layers_64_devices_M8, Objective::one_f_one_b, 8)->Unit(benchmark::kMillisecond);

void whole_search(benchmark::State& state, const char* network_name, std::int64_t global_batch, std::int64_t sequence) {
  const Network network = load_network(network_name);
  const Cluster cluster = load_cluster("dgx-h100-x64");
  SearchSpace space;
  space.global_batch = global_batch;
  space.sequence = sequence;
  space.fused_attention = true;
  SearchResult result;
  for (auto _ : state) result = search(network, cluster, RooflineCostModel(reserved_memory(cluster)), space);
  state.SetLabel(to_string(result.ranked.front().candidate.layout));
  state.counters["layouts"] = static_cast<double>(result.counts.layouts);
  state.counters["partitioned"] = static_cast<double>(result.counts.partitioned);
  state.counters["step_s"] = result.ranked.front().candidate.timeline->value();
}
// Without tensor parallelism 405B needs nearly all layers on devices of their own, and few micro-batches in flight.
BENCHMARK_CAPTURE(whole_search, llama_405b_512_h100, "llama-3.1-405b", 128, 8192)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(whole_search, llama_70b_512_h100, "llama-3-70b", 2048, 8192)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace stagecraft

BENCHMARK_MAIN();
