#include "models/cost/framework_cost.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/cost/step_model.hpp"
#include "models/error.hpp"
#include "models/network/network.hpp"

namespace stagecraft {
namespace {

// A step of M micro-batches on one device, or one group of `tensor`, without replicas.
struct OneRank {
  Seconds step;
  Bytes memory;  // of each device
};

OneRank by_layers(const Network& network, const CostModel& model, const Workload& workload, const DeviceType& device,
                  int microbatches) {
  std::vector<LayerCost> costs;
  StageCost tied;
  for (LayerId layer = 0; layer < network.graph.layers(); ++layer) {
    costs.push_back(model.layer_cost(network.graph[layer], workload, device));
    const Layer& user = network.graph[layer];
    if (user.tied_to.empty()) continue;
    const double share = static_cast<double>(user.tied_parameters) / static_cast<double>(user.parameters);
    tied.optimizer += costs.back().optimizer * share;
    tied.weights += (costs.back().weights + costs.back().gradients + costs.back().optimizer_state) * share;
  }
  const StageCost stage = stage_cost(costs, Bytes(0), Bytes(0));
  const Overheads overheads = model.overheads(device);
  const Seconds each = stage.forward + stage.backward() + 2 * overheads.action;
  return {each * microbatches + stage.optimizer - tied.optimizer + overheads.step,
          (stage.peak_memory(1) - tied.weights + overheads.reserved) / device.group};
}

DeviceType group_of(const Cluster& cluster, int width) {
  DeviceType group = cluster.device_types.front();
  if (width == 1) return group;
  group.name = fmt::format("{}-way {}", width, group.name);
  group.memory *= width;
  group.memory_bandwidth *= width;
  for (FlopsPerSecond& peak : group.peak) peak *= width;
  group.group = width;
  group.group_link = cluster.nodes.front().local;
  return group;
}

// On one rank both know everything that there is to a step.
TEST(FrameworkCosts, AreThoseOfTheStepModelOnOneRank) {
  for (const char* name : {"gpt2-xl", "llama-2-7b"}) {
    const Network network = load_network(name);
    const Cluster cluster = load_cluster("dgx-a100");
    for (const char* framework : {"megatron-core", "megatron-deepspeed", "torchtitan"}) {
      for (const int tensor : {1, 4}) {
        for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
          for (const bool sequence_parallel : {false, true}) {
            if (sequence_parallel && tensor == 1) continue;
            constexpr int microbatches = 6;
            Workload workload{.microbatch = 2, .sequence = 1024, .recompute = recompute, .fused_attention = true};
            Machine machine = machine_of(cluster, framework);
            machine.framework.straggling = machine.framework.pipelined_dispatch_s = 0;
            machine.framework.communicator_bytes = 0;
            TrainingJob job{*network.transformer,
                            std::int64_t{2} * microbatches,
                            1024,
                            workload.precision,
                            workload.optimizer,
                            true};
            ParallelLayout layout;
            layout.tensor = tensor;
            layout.microbatch = 2;
            layout.microbatches = microbatches;
            layout.recompute = recompute;
            layout.sequence_parallel = sequence_parallel;
            const StepEstimate estimate = StepModel(job, machine).estimate(layout);
            const FrameworkCostModel model(network, cluster, framework, sequence_parallel);
            const OneRank found = by_layers(network, model, workload, group_of(cluster, tensor), microbatches);
            EXPECT_NEAR(found.step / estimate.time, 1, 0.01)
                << name << framework << tensor << static_cast<int>(recompute);
            EXPECT_NEAR(found.memory.value() / estimate.memory.total(), 1, 0.03)
                << name << framework << tensor << static_cast<int>(recompute) << sequence_parallel;
          }
        }
      }
    }
  }
}

TEST(FrameworkCosts, AreOfTheClustersDevices) {
  const Network network = load_network("gpt2");
  const Cluster cluster = load_cluster("mixed-a100-v100");
  EXPECT_THROW(FrameworkCostModel(network, cluster, "megatron"), Error);
  const FrameworkCostModel model(network, cluster, "megatron-core");
  const Workload workload{.sequence = 1024, .precision = DataType::fp16};
  const auto forward = [&](const DeviceType& type) {
    return model.layer_cost(network.graph[1], workload, type).forward;
  };
  EXPECT_LT(forward(cluster.device_types[0]), forward(cluster.device_types[1]));
  DeviceType other = cluster.device_types[0];
  for (FlopsPerSecond& peak : other.peak) peak *= 0.1;
  EXPECT_GT(forward(other), forward(cluster.device_types[0]));
  other.name = "unknown";
  EXPECT_THROW(forward(other), Error);
  Workload in_bf16 = workload;
  in_bf16.precision = DataType::bf16;
  EXPECT_THROW(model.layer_cost(network.graph[1], in_bf16, cluster.device_types[1]), Error);
  in_bf16.precision = DataType::fp8;
  EXPECT_THROW(model.layer_cost(network.graph[1], in_bf16, cluster.device_types[0]), Error);
}

}  // namespace
}  // namespace stagecraft
