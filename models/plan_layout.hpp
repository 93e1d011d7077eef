// What a plan says about its devices' work beyond stages, schedule, batch and the devices themselves.
//
// Together they are one point of the planner's space: parallel_layout() puts it together, plan_layout_of() takes it
// apart. JSON: the object "layout" of docs/file_formats.md, only what differs from one device a rank.
#pragma once

#include <cstdint>
#include <vector>

#include "models/json_reader.hpp"
#include "models/layout.hpp"
#include "models/recomputed_layers.hpp"

namespace stagecraft {

// Fields as in ParallelLayout.
struct PlanLayout {
  std::int32_t tensor = 1;
  std::int32_t context = 1;
  std::int32_t expert = 1;
  std::int32_t recomputed_layers = all_layers;
  std::vector<std::int32_t> recomputed_by_rank;  // blocks, where recomputed_layers is listed_layers; else empty
  std::uint8_t zero = 0;
  bool sequence_parallel = false;
  bool offload_optimizer = false;
  bool offload_activations = false;
  bool overlap_gradients = false;
  bool overlap_parameters = false;
  bool overlap_tensor = false;
  bool overlap_pipeline = false;
  bool operator==(const PlanLayout&) const = default;

  // Nothing but, at most, ZeRO 1: models of whole layers can price it.
  bool has_whole_layers() const { return *this == PlanLayout{.zero = static_cast<std::uint8_t>(zero == 1 ? 1 : 0)}; }
  // The same, but for the blocks that recompute, which are counted by rank.
  bool has_layers_by_rank() const {
    PlanLayout whole = *this;
    if (recomputed_layers == listed_layers) whole.recomputed_layers = all_layers;
    whole.recomputed_by_rank.clear();
    return whole.has_whole_layers();
  }
  // Devices that hold one rank of one replica between them.
  int shards() const { return tensor * context; }
};

// Without recomputed_by_rank, which a ParallelLayout has not.
PlanLayout plan_layout_of(const ParallelLayout& layout);

PlanLayout plan_layout_from_json(const JsonValue& value);
Json to_json(const PlanLayout& layout);

}  // namespace stagecraft
