#include "models/plan_layout.hpp"

#include <array>
#include <nlohmann/json.hpp>

#include "models/recomputed_layers.hpp"

namespace stagecraft {
namespace {

constexpr std::int64_t max_width = 65'536;

struct Width {
  std::string_view name;
  std::int32_t PlanLayout::*field;
};
constexpr std::array<Width, 3> widths{
    {{"tensor", &PlanLayout::tensor}, {"context", &PlanLayout::context}, {"expert", &PlanLayout::expert}}};

struct PlanFlag {
  std::string_view name;
  bool PlanLayout::*field;
};
constexpr std::array<PlanFlag, 7> flags{{{"sequence_parallel", &PlanLayout::sequence_parallel},
                                         {"offload_optimizer", &PlanLayout::offload_optimizer},
                                         {"offload_activations", &PlanLayout::offload_activations},
                                         {"overlap_gradients", &PlanLayout::overlap_gradients},
                                         {"overlap_parameters", &PlanLayout::overlap_parameters},
                                         {"overlap_tensor", &PlanLayout::overlap_tensor},
                                         {"overlap_pipeline", &PlanLayout::overlap_pipeline}}};

}  // namespace

PlanLayout plan_layout_of(const ParallelLayout& layout) {
  return {.tensor = layout.tensor,
          .context = layout.context,
          .expert = layout.expert,
          .recomputed_layers = layout.recomputed_layers,
          .recomputed_by_rank = {},
          .zero = layout.zero,
          .sequence_parallel = layout.sequence_parallel,
          .offload_optimizer = layout.offload_optimizer,
          .offload_activations = layout.offload_activations,
          .overlap_gradients = layout.overlap_gradients,
          .overlap_parameters = layout.overlap_parameters,
          .overlap_tensor = layout.overlap_tensor,
          .overlap_pipeline = layout.overlap_pipeline};
}

PlanLayout plan_layout_from_json(const JsonValue& value) {
  JsonObject object = value.object();
  PlanLayout layout;
  for (const auto& [name, field] : widths) {
    if (const auto width = object.optional(name)) {
      layout.*field = static_cast<std::int32_t>(width->integer(1, max_width));
    }
  }
  if (const auto layers = object.optional("recomputed_layers")) {
    if (layers->json().is_array()) {
      layout.recomputed_layers = listed_layers;
      for (const JsonValue& rank : layers->array(max_width)) {
        layout.recomputed_by_rank.push_back(static_cast<std::int32_t>(rank.integer(0, all_layers - 1)));
      }
    } else {
      layout.recomputed_layers = recomputed_layers_from_json(*layers);
      if (layout.recomputed_layers == listed_layers) throw layers->expected("a number, a list by rank or \"fewest\"");
    }
  }
  if (const auto zero = object.optional("zero")) layout.zero = static_cast<std::uint8_t>(zero->integer(0, 3));
  for (const auto& [name, field] : flags) {
    if (const auto flag = object.optional(name)) layout.*field = flag->boolean();
  }
  object.finish();
  return layout;
}

Json to_json(const PlanLayout& layout) {
  Json json = Json::object();
  for (const auto& [name, field] : widths) {
    if (layout.*field != 1) json[name] = layout.*field;
  }
  if (layout.recomputed_layers == listed_layers) {
    json["recomputed_layers"] = layout.recomputed_by_rank;
  } else if (layout.recomputed_layers != all_layers) {
    json["recomputed_layers"] = recomputed_layers_json(layout.recomputed_layers);
  }
  if (layout.zero != 0) json["zero"] = layout.zero;
  for (const auto& [name, field] : flags) {
    if (layout.*field) json[name] = true;
  }
  return json;
}

}  // namespace stagecraft
