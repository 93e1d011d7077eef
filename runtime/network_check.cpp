#include "runtime/network_check.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "models/error.hpp"
#include "models/text.hpp"
#include "runtime/tensor_shard.hpp"

namespace stagecraft {

namespace {

// Blocks of a rank.
std::int64_t most_blocks(const Plan& plan) {
  const std::int64_t head = plan.network.transformer->layers + 1;
  std::vector<std::int64_t> layers(static_cast<std::size_t>(plan.ranks()));
  for (const PlanStage& stage : plan.stages) {
    layers[static_cast<std::size_t>(stage.rank.value)] +=
        std::min(stage.layers.last, head) - std::max<std::int64_t>(stage.layers.first, 1);
  }
  return *std::max_element(layers.begin(), layers.end());
}

}  // namespace

void check_trainable(const Network& network) {
  const std::string name = printable(network.name);
  if (!network.transformer) {
    throw bad_input(
        "network '{}' is a hand-written graph: it can be planned and simulated; training and profiling need "
        "a transformer description",
        name);
  }
  if (network.transformer->latent) {
    throw bad_input("network '{}' has multi-head latent attention: it can be planned and simulated, not trained", name);
  }
  if (network.transformer->experts > 0) {
    throw bad_input("network '{}' is a mixture of experts: it can be planned and simulated, not trained on CPUs", name);
  }
}

void check_layout(const Plan& plan, PlanLayout rest, std::string_view backend) {
  for (const DeviceType& type : plan.cluster.device_types) {
    if (type.group > 1) {
      throw device_error(
          "the plan's device type '{}' is a group of {} devices, each rank with a width of its own: it "
          "can be simulated, not run",
          printable(type.name), type.group);
    }
  }
  rest.tensor = 1;
  rest.sequence_parallel = false;
  if (plan.recompute == Recompute::none || rest.recomputed_layers >= most_blocks(plan)) {
    rest.recomputed_layers = all_layers;
  }
  if (rest != PlanLayout{}) {
    throw device_error(
        "the plan shares a rank's work among devices in ways that the {} backend does not run, or offloads it "
        "(\"layout\": {}): plan with --context 1 --zero 0 and without offloading, overlap or --recompute-layers",
        backend, to_json(plan.layout).dump());
  }
  const int tensor = plan.layout.tensor;
  if (const std::string fault = tensor_parallel_fault(*plan.network.transformer, tensor); !fault.empty()) {
    throw bad_input("{}", fault);
  }
  const std::int64_t rows = plan.batch.microbatch * plan.batch.sequence / plan.schedule.slices;
  if (plan.layout.sequence_parallel && rows % tensor != 0) {
    throw bad_input("layout.sequence_parallel: expected rows of a micro-batch in a multiple of {} (tensor), got {}",
                    tensor, rows);
  }
}

}  // namespace stagecraft
