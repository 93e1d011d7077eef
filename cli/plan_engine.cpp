#include "cli/plan_engine.hpp"

#include <algorithm>

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

}  // namespace stagecraft
