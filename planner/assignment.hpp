// Which device runs which rank of which replica.
//
// Neighbours of a pipeline take consecutive devices of the cluster, so that they are near; like devices stand together
// in a pipeline; and all replicas of a rank have one type of device, as they share its stages.
#pragma once

#include <span>
#include <vector>

#include "models/cluster/cluster.hpp"

namespace stagecraft {

struct Assignment {
  std::vector<int> types;                      // by rank: index into Cluster::device_types
  std::vector<std::vector<DeviceId>> devices;  // [replica][rank]
  bool operator==(const Assignment&) const = default;
};

// The arrangements worth trying, at least one where the types have enough devices. Each order in `preferences` lists
// device types, best first: ranks take the best types first, and are then arranged in every order of those types (in
// two orders, as preferred and reversed, beyond four types). With one type there is one arrangement.
// `every_split`: ranks are also shared out over the types in every other way, so that any devices can stay idle (where
// that is at most 256 ways). REQUIRES: ranks > 0, replicas > 0.
std::vector<Assignment> assignments(const Cluster& cluster, std::span<const std::vector<int>> preferences, int ranks,
                                    int replicas, bool every_split = false);

}  // namespace stagecraft
