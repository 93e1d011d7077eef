// What layers and stages cost on a device: the currency between networks, clusters, planner and simulators.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/cluster/cluster.hpp"
#include "models/network/layer.hpp"
#include "models/units.hpp"

namespace stagecraft {

// Which forward results are kept for the backward (Korthikanti et al. 2022, arXiv 2205.05198, section 4 and 5):
// none recomputes nothing; selective recomputes the attention core (scores, softmax); full keeps each layer's input.
enum class Recompute { none, selective, full };

enum class Optimizer { sgd, adamw };

// How much of the time the device's GPU computes, from 0 to 1, before and while it does the forwards, and the
// backwards, of a stage: at its power limit a GPU that rests in between runs at a higher clock.
struct Load {
  double forward = 1, backward = 1;
  bool operator==(const Load&) const = default;
};

// What one training step computes with; bytes a parameter follow from precision and optimizer (docs/cost_model.md).
struct Workload {
  std::int64_t microbatch = 1;  // samples
  std::int64_t sequence = 1;    // tokens a sample
  DataType precision = DataType::bf16;
  Optimizer optimizer = Optimizer::adamw;
  Recompute recompute = Recompute::none;
  bool fused_attention = false;  // a fused kernel keeps no sequence x sequence matrix
  // On a slice of a GPU: how many of its neighbours compute at the same time; absent: all of them.
  std::optional<int> busy_neighbours;
  bool beside_forwards = false;  // they do nothing but forwards, rather than what they do in a step
  Load load;
  // A step, of this size; 0: very many. A step's first backward may be shorter, as it replaces the gradients that the
  // others add to: times are those of the mean one.
  std::int64_t microbatches = 0;
  bool operator==(const Workload&) const = default;
};

// One layer, one micro-batch, one device.
struct LayerCost {
  Seconds forward;
  Seconds recompute;  // repeated forward at the start of the backward; zero without recomputation
  Seconds backward_input;
  Seconds backward_weight;
  Seconds backward_saving;  // what one full backward saves over its two parts: the second finds the first's in a cache
  Seconds optimizer;        // once a step
  Bytes weights;            // parameters in the precision of the computation
  Bytes gradients;          // accumulated, once, whatever the number of micro-batches
  Bytes optimizer_state;    // moments and master weights
  Bytes stash;              // kept from the forward to the backward, each in-flight micro-batch
  Bytes split;              // kept from the input gradient to the weight gradient, where they are two actions
  Bytes workspace;          // scratch while the layer runs; layers share it, so a stage needs the largest
  // What replicas sum, in bytes of an all-reduce; empty: the gradients.
  std::optional<Bytes> reduced;
  Bytes reduced_gradients() const { return reduced.value_or(gradients); }
};

// ZeRO 1 (Rajbhandari et al. 2020): each of the replicas keeps and updates an equal part of the optimizer's state. It
// gets the sum of its part of the gradients, and all get the updated weights: a reduce-scatter of the former and an
// all-gather of the latter, each half of a ring's all-reduce. For costs of layers and of stages. REQUIRES: more than
// one replica.
template <class Cost>
void shard_optimizer(Cost& cost, int replicas) {
  cost.optimizer /= replicas;
  cost.optimizer_state /= replicas;
  cost.reduced = (cost.reduced_gradients() + cost.weights) / 2;
}

// What takes time or memory on top of the layers.
struct Overheads {
  Seconds action;  // every F, B, I and W: starting it, and what lies between it and the next
  Seconds step;    // every rank, once a step: what the host does around it
  // What messages hold, in tensors that cross an end of the stage:
  int kept_outputs = 0;     // with every stash of a stage that sends its outputs
  int message_buffers = 0;  // on a rank that gets outputs and sends gradients
  Bytes reserved;           // on every device: its driver's context, buffers of communication libraries
};

// What a stage computes with, under one condition.
struct ComputeTimes {
  Seconds forward, backward_input, backward_weight, backward_saving, optimizer;
  Seconds backward() const { return backward_input + backward_weight - backward_saving; }
  bool operator==(const ComputeTimes&) const = default;
};

// A stage: its layers' sums, and the tensors that cross its ends.
struct StageCost {
  Seconds forward;          // one micro-batch
  Seconds backward_input;   // one micro-batch, gradient of the activations, recomputation included
  Seconds backward_weight;  // one micro-batch, gradient of the parameters
  Seconds backward_saving;  // what one full backward saves over its two parts
  Seconds optimizer;        // once a step
  Bytes boundary;           // activation sent to the next stage, one micro-batch; as many bytes of gradient come back
  Bytes stash;              // kept per in-flight micro-batch until its backward
  Bytes split;              // kept per micro-batch between its input and its weight gradient, where they are two
  Bytes weights;
  Bytes gradients;
  Bytes optimizer_state;
  Bytes workspace;
  Bytes tied;  // gradient bytes of the table shared with the other end of the pipeline, else zero
  // Gradient bytes summed over the replicas once the last backward has ended; empty: all that are kept. Fewer where the
  // reduction overlaps the backward, more where the sums are sharded (ZeRO 2 and 3).
  std::optional<Bytes> reduced;
  // On a slice of a GPU: the times by how many of the others compute, evenly from none to all, which are those above.
  // Empty where the device shares nothing.
  std::vector<ComputeTimes> beside;
  // While all of the others do forwards, which leave each other more of the memory than backwards do; empty: as beside
  // all that they do.
  std::optional<ComputeTimes> beside_forwards;
  bool operator==(const StageCost&) const = default;

  Seconds backward() const { return times().backward(); }
  ComputeTimes times() const { return {forward, backward_input, backward_weight, backward_saving, optimizer}; }
  Bytes reduced_gradients() const { return reduced.value_or(gradients); }
  // Peak with `in_flight` stashed micro-batches.
  Bytes peak_memory(int in_flight) const {
    return weights + gradients + optimizer_state + workspace + stash * static_cast<double>(in_flight);
  }
};

// Prices layers. Implementations: roofline.hpp (peaks and efficiencies), profiled.hpp (measurements); nobody
// downstream can tell which. Pure: same inputs, same numbers. Formulas and sources: docs/cost_model.md.
class CostModel {
 public:
  virtual ~CostModel() = default;
  // Throws bad_input when the model knows nothing of this layer or device (a profile without that kind).
  virtual LayerCost layer_cost(const Layer& layer, const Workload& workload, const DeviceType& device) const = 0;
  virtual Overheads overheads(const DeviceType&) const { return {}; }
  // Whether layers can be priced with this recomputation, whatever else may be missing.
  virtual bool knows(Recompute) const { return true; }
  // Whether a layer's cost differs with Workload::load.
  virtual bool heeds_load() const { return false; }
  // Likewise with Workload::microbatches.
  virtual bool heeds_microbatches() const { return false; }
};

// How many others may compute at the same time on the GPU that the device is a slice of; a device of its own: none.
int most_neighbours(const DeviceType& device);

// Sums over a stage made of `layers` (each once). `boundary` is the activation that leaves it.
StageCost stage_cost(std::span<const LayerCost> layers, Bytes boundary, Bytes tied);

// Bytes an element of tensors in this precision occupies: 4 for fp32 and tf32, 2 for bf16 and fp16, 1 for fp8.
Bytes element_size(DataType precision);

std::string_view name(Recompute recompute);
std::string_view name(Optimizer optimizer);
std::span<const std::pair<std::string_view, Recompute>> recompute_names();
std::span<const std::pair<std::string_view, Optimizer>> optimizer_names();

}  // namespace stagecraft
