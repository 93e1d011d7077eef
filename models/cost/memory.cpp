#include "models/cost/memory.hpp"

#include <algorithm>

namespace stagecraft {
namespace {

Bytes bytes_of(const StashAmount& stash, const Workload& workload) {
  return stash.elements.at(workload.microbatch, workload.sequence) * element_size(workload.precision) +
         Bytes(stash.bytes.at(workload.microbatch, workload.sequence));
}

Bytes input_bytes(const Layer& layer, const Workload& workload) {
  return layer.input.at(workload.microbatch, workload.sequence) * element_size(workload.precision);
}

// Without recomputation.
Bytes whole_stash(const Layer& layer, const Workload& workload) {
  const Bytes all = bytes_of(layer.stash, workload);
  return workload.fused_attention ? std::max(Bytes(0), all - bytes_of(layer.attention_stash, workload)) : all;
}

}  // namespace

ParameterBytes parameter_bytes(DataType precision, Optimizer optimizer) {
  constexpr Bytes single(4);
  const bool mixed = element_size(precision) != single;
  ParameterBytes bytes;
  bytes.weight = std::max(element_size(precision), Bytes(2));  // products in fp8 cast 16-bit weights
  bytes.gradient = single;
  bytes.optimizer_state = single * (optimizer == Optimizer::adamw ? 2 : 1) + (mixed ? single : Bytes(0));
  // Gradient: read, zeroed. State: read, written. Weights: in fp32 they are the master copy, read and written; else
  // they are only written, from the master copy.
  bytes.touched = 2 * bytes.gradient + 2 * bytes.optimizer_state + (mixed ? 1 : 2) * bytes.weight;
  return bytes;
}

bool may_recompute(const Layer& layer) { return layer.input != Amount{}; }

bool recomputed_fully(const Layer& layer, const Workload& workload) {
  return workload.recompute == Recompute::full && may_recompute(layer);
}

bool attention_recomputed(const Layer& layer, const Workload& workload) {
  return workload.recompute == Recompute::selective && !workload.fused_attention &&
         layer.attention_stash != StashAmount{};
}

Bytes stash_bytes(const Layer& layer, const Workload& workload) {
  const Bytes whole = whole_stash(layer, workload);
  if (recomputed_fully(layer, workload)) return std::min(whole, input_bytes(layer, workload));
  if (!attention_recomputed(layer, workload)) return whole;
  return std::max(Bytes(0), whole - bytes_of(layer.attention_stash, workload));
}

Bytes workspace_bytes(const Layer& layer, const Workload& workload) {
  return whole_stash(layer, workload) - stash_bytes(layer, workload) + 2 * input_bytes(layer, workload);
}

}  // namespace stagecraft
