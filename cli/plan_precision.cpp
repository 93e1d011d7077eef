#include "cli/plan_precision.hpp"

#include <algorithm>
#include <array>

#include "models/error.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

constexpr std::array preferred{DataType::bf16, DataType::fp16, DataType::tf32, DataType::fp32};

// The first device type in use that does not compute in it; null: all do.
const DeviceType* without(const Cluster& cluster, DataType precision) {
  for (const Device& device : cluster.devices) {
    const DeviceType& type = cluster.device_types[static_cast<std::size_t>(device.type)];
    if (!(type.peak_of(precision) > FlopsPerSecond(0))) return &type;
  }
  return nullptr;
}

}  // namespace

PlanOptions with_precision(PlanOptions options, const Cluster& cluster, const Profile* profile) {
  if (!options.precisions.empty()) return options;
  const auto take = [&](DataType precision, const std::string& why) {
    options.precisions = {std::string(name(precision))};
    if (precision != DataType::bf16) options.precision_note = fmt::format("precision {}, {}", name(precision), why);
    return options;
  };
  if (profile != nullptr) return take(profile->precision, "as the profile was measured in it");
  const DeviceType* const lacks = without(cluster, preferred.front());
  for (const DataType precision : preferred) {
    if (without(cluster, precision) != nullptr) continue;
    return take(precision, lacks == nullptr ? ""
                                            : fmt::format("as device '{}' computes in {}", printable(lacks->name),
                                                          join(precisions_of(*lacks))));
  }
  std::vector<std::string> each;
  for (const DeviceType& type : cluster.device_types) {
    each.push_back(fmt::format("'{}' in {}", printable(type.name), join(precisions_of(type))));
  }
  throw bad_input(
      "--precision: the devices of cluster '{}' have none of {} in common ({}); one that is named leaves "
      "out those that lack it",
      printable(cluster.name), "bf16, fp16, tf32 and fp32", fmt::join(each, "; "));
}

}  // namespace stagecraft
