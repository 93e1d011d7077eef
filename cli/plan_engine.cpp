#include "cli/plan_engine.hpp"

#include <algorithm>
#include <initializer_list>

#include "models/layout.hpp"
#include "models/schedule/schedule.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

// The first node whose devices or links are not those of the first node; null: all are alike.
const Node* unlike_node(const Cluster& cluster) {
  const Node& first = cluster.nodes.front();
  const DeviceType& device = cluster.type_of(first.devices.front());
  const auto other = std::find_if(cluster.nodes.begin(), cluster.nodes.end(), [&](const Node& node) {
    const bool alike = node.devices.size() == first.devices.size() && node.local == first.local &&
                       node.network == first.network && node.nics == first.nics &&
                       std::all_of(node.devices.begin(), node.devices.end(),
                                   [&](DeviceId id) { return &cluster.type_of(id) == &device; });
    return !alike;
  });
  return other == cluster.nodes.end() ? nullptr : &*other;
}

// Whether it asks for what is planned in any case: whole layers on a device, all state and activations in its memory.
bool is_as_planned(std::string_view option, const LayoutChoices& layout) {
  return (option == "--tensor" && layout.tensor == 1) || (option == "--context" && layout.context == 1) ||
         (option == "--expert" && layout.expert == 1) || (option == "--zero" && layout.zero == 0) ||
         (option == "--offload-optimizer" && layout.offload_optimizer == false) ||
         (option == "--offload-activations" && layout.offload_activations == false);
}

}  // namespace

std::string why_no_layouts(const PlanOptions& options, const Network& network, const Cluster& cluster) {
  if (!network.transformer) return fmt::format("network '{}' is a graph", printable(network.name));
  const Node& first = cluster.nodes.front();
  const DeviceType& device = cluster.type_of(first.devices.front());
  // What is here is planned for as the runtime runs it: layers whole, unless devices are to split them.
  const bool here = is_this_machine(options.cluster);
  const bool split = here && options.layout.tensor;
  if (device.kind != DeviceKind::gpu && !split) return fmt::format("'{}' is no GPU", printable(device.name));
  if (const Node* other = unlike_node(cluster)) {
    return fmt::format("node '{}' is unlike node '{}'", printable(other->name), printable(first.name));
  }
  if (device.group > 1) return fmt::format("'{}' is a group of devices", printable(device.name));
  if (device.is_slice() || (here && !split)) {
    return fmt::format("'{}' is there to run on, with whole layers on a device", printable(options.cluster));
  }
  if (!options.profile.empty()) return "a profile prices whole layers";
  const auto names = pipeline_schedule_names();
  const bool has_form =
      std::any_of(names.begin(), names.end(), [&](const auto& entry) { return entry.first == options.schedule; });
  const auto& kinds = schedule_kinds();
  const bool is_known =
      std::any_of(kinds.begin(), kinds.end(), [&](const ScheduleKind& kind) { return kind.name == options.schedule; });
  if (is_known && !has_form) return fmt::format("schedule '{}' is no synchronous training", options.schedule);
  return {};
}

bool may_group(const PlanOptions& options, const Network& network, const Cluster& cluster) {
  const auto is_gpu = [](const DeviceType& type) { return type.kind == DeviceKind::gpu && !type.is_slice(); };
  return network.transformer && options.profile.empty() && !is_this_machine(options.cluster) &&
         unlike_node(cluster) != nullptr &&
         std::all_of(cluster.device_types.begin(), cluster.device_types.end(), is_gpu);
}

std::string refuse_here(std::string_view option, const PlanOptions& options, const Network& network,
                        const Cluster& cluster) {
  const bool here = is_this_machine(options.cluster);
  const bool is_grouped = may_group(options, network, cluster);
  const auto is_one_of = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), option) != names.end();
  };
  const auto instead = [&](std::string_view expected) {
    return fmt::format("only pipelines and replicas are planned here, as {}: expected {}",
                       why_no_layouts(options, network, cluster), expected);
  };
  if (is_one_of({"--pipeline", "--virtual-stages"})) return {};
  if (is_as_planned(option, options.layout) || (is_grouped && option == "--tensor")) return {};
  if (option == "--zero") return here ? instead("0") : "";
  if (option == "--recompute-layers") {
    const bool has_slices = std::any_of(cluster.device_types.begin(), cluster.device_types.end(),
                                        [](const DeviceType& type) { return type.is_slice(); });
    const bool is_counted = network.transformer && options.profile.empty() && !here && !has_slices;
    return is_counted ? "" : instead("--recompute, for all blocks");
  }
  if (option == "--sequence-parallel" && is_grouped) {
    const bool is_priced = !options.framework.empty() || options.layout.sequence_parallel == true;
    return is_priced ? ""
                     : instead("on, as the devices' figures price it so, or --framework, whose constants price off");
  }
  if (option == "--framework") {
    const bool has_gpus =
        std::all_of(cluster.device_types.begin(), cluster.device_types.end(),
                    [](const DeviceType& type) { return type.kind == DeviceKind::gpu && !type.is_slice(); });
    return !network.transformer       ? "expected a transformer, whose layers the constants are fitted to"
           : !options.profile.empty() ? "expected none beside --profile, which has the costs themselves"
           : here                     ? "expected none where this program's own runtime trains"
           : !has_gpus                ? "expected whole GPUs, which the constants are fitted to"
                                      : "";
  }
  if (is_one_of({"--first-stage-layers", "--last-stage-layers"})) return instead("--cuts, which places all stages");
  if (option == "--context" && is_grouped) {
    return instead("1, or --tensor, whose devices share the memory of all tokens, or nodes of like GPUs alone");
  }
  return instead(!network.transformer       ? "none"
                 : !options.profile.empty() ? "none, or no --profile"
                                            : "none, or nodes of like GPUs alone");
}

}  // namespace stagecraft
