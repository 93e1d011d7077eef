#include "models/cost/roofline.hpp"

#include <algorithm>
#include <cassert>

#include "models/cost/communication.hpp"
#include "models/cost/machine.hpp"
#include "models/cost/memory.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

FlopsPerSecond checked_peak(const DeviceType& device, DataType precision) {
  const FlopsPerSecond peak = device.peak_of(precision);
  if (peak > FlopsPerSecond(0)) return peak;
  throw bad_input("device type '{}' does not compute in {}; it does in {}", device.name, name(precision),
                  join(precisions_of(device)));
}

// The times that one layer's directions are composed of.
class LayerTimes {
 public:
  LayerTimes(const Layer& layer, const Workload& workload, const DeviceType& device)
      : layer_(layer), workload_(workload), device_(device), peak_(checked_peak(device, workload.precision)) {}

  // Products with weights: the slower of arithmetic and of streaming the weights (or their gradients) once.
  Seconds matmul(Bytes weight_traffic) const {
    const Flops work(amount(layer_.matmul_flops));
    if (work == Flops(0)) return Seconds(0);
    const Efficiency& efficiency = device_.efficiency;
    return std::max((work + efficiency.half_rate) / (peak_ * efficiency.matmul),
                    weight_traffic / device_.memory_bandwidth);
  }
  Seconds attention() const { return Flops(amount(layer_.attention_flops)) / (peak_ * device_.efficiency.attention); }
  // Memory-bound operations; a fused attention kernel never writes its sequence x sequence part.
  Seconds elementwise() const {
    Amount moved = layer_.moved;
    if (workload_.fused_attention) moved.per_token_pair = 0;
    return moving(amount(moved) * element_size(workload_.precision));
  }
  // The sequence x sequence part of the memory-bound operations: softmax and its companions.
  Seconds attention_elementwise() const {
    return moving(amount({0, 0, layer_.moved.per_token_pair}) * element_size(workload_.precision));
  }
  Seconds moving(Bytes bytes) const { return bytes / (device_.memory_bandwidth * device_.efficiency.memory); }
  Seconds launch() const { return device_.efficiency.launch; }
  // What the devices of a group gather and scatter, by rings.
  Seconds exchange() const {
    if (device_.group == 1 || layer_.exchanges == 0) return Seconds(0);
    const Bytes each = amount(layer_.exchanged) / layer_.exchanges * element_size(workload_.precision);
    return layer_.exchanges * ring_all_gather_time(device_.group_link, device_.group, each);
  }

 private:
  double amount(const Amount& amount) const { return amount.at(workload_.microbatch, workload_.sequence); }

  const Layer& layer_;
  const Workload& workload_;
  const DeviceType& device_;
  FlopsPerSecond peak_;
};

}  // namespace

LayerCost RooflineCostModel::layer_cost(const Layer& layer, const Workload& workload, const DeviceType& device) const {
  assert(workload.microbatch > 0 && workload.sequence > 0);
  const LayerTimes times(layer, workload, device);
  const ParameterBytes each = parameter_bytes(workload.precision, workload.optimizer);
  const auto parameters = static_cast<double>(layer.parameters);

  LayerCost cost;
  cost.weights = each.weight * parameters;
  cost.gradients = each.gradient * parameters;
  cost.optimizer_state = each.optimizer_state * parameters;
  cost.stash = stash_bytes(layer, workload);
  cost.workspace = workspace_bytes(layer, workload);

  cost.forward =
      times.matmul(cost.weights) + times.attention() + times.elementwise() + times.launch() + times.exchange();
  cost.backward_input =
      times.matmul(cost.weights) + 2 * times.attention() + times.elementwise() + times.launch() + times.exchange();
  if (layer.parameters > 0) {
    cost.backward_weight = times.matmul(2 * cost.gradients) + times.launch();
    cost.optimizer = times.moving(each.touched * parameters) + times.launch();
  }
  if (recomputed_fully(layer, workload)) {
    cost.recompute = cost.forward;
  } else if (attention_recomputed(layer, workload)) {
    cost.recompute = times.attention() + times.attention_elementwise() + times.launch();
  }
  return cost;
}

Overheads RooflineCostModel::overheads(const DeviceType& device) const {
  Overheads overheads;
  if (device.kind == DeviceKind::gpu && !device.is_slice()) overheads.reserved = reserved_ * device.group;
  return overheads;
}

Bytes reserved_memory(const Cluster& cluster) {
  return Bytes(is_this_machine(cluster.name) ? 0 : FrameworkConstants{}.reserved_bytes);
}

}  // namespace stagecraft
