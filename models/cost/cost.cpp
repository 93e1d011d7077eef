#include "models/cost/cost.hpp"

#include <algorithm>
#include <array>

namespace stagecraft {
namespace {

constexpr std::array<std::pair<std::string_view, Recompute>, 3> recomputes{
    {{"none", Recompute::none}, {"selective", Recompute::selective}, {"full", Recompute::full}}};
constexpr std::array<std::pair<std::string_view, Optimizer>, 2> optimizers{
    {{"sgd", Optimizer::sgd}, {"adamw", Optimizer::adamw}}};

}  // namespace

StageCost stage_cost(std::span<const LayerCost> layers, Bytes boundary, Bytes tied) {
  StageCost stage;
  for (const LayerCost& layer : layers) {
    stage.forward += layer.forward;
    stage.backward_input += layer.recompute + layer.backward_input;
    stage.backward_weight += layer.backward_weight;
    stage.backward_saving += layer.backward_saving;
    stage.optimizer += layer.optimizer;
    stage.split += layer.split;
    stage.stash += layer.stash;
    stage.weights += layer.weights;
    if (stage.reduced || layer.reduced) stage.reduced = stage.reduced_gradients() + layer.reduced_gradients();
    stage.gradients += layer.gradients;
    stage.optimizer_state += layer.optimizer_state;
    stage.workspace = std::max(stage.workspace, layer.workspace);
  }
  stage.boundary = boundary;
  stage.tied = tied;
  return stage;
}

int most_neighbours(const DeviceType& device) {
  return device.is_slice() ? device.gpu_multiprocessors / device.multiprocessors - 1 : 0;
}

Bytes element_size(DataType precision) {
  switch (precision) {
    case DataType::fp32:
    case DataType::tf32:
      return Bytes(4);
    case DataType::bf16:
    case DataType::fp16:
      return Bytes(2);
    case DataType::fp8:
      break;
  }
  return Bytes(1);
}

std::span<const std::pair<std::string_view, Recompute>> recompute_names() { return recomputes; }
std::span<const std::pair<std::string_view, Optimizer>> optimizer_names() { return optimizers; }
std::string_view name(Recompute recompute) { return recomputes[static_cast<std::size_t>(recompute)].first; }
std::string_view name(Optimizer optimizer) { return optimizers[static_cast<std::size_t>(optimizer)].first; }

}  // namespace stagecraft
