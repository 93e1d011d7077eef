#include "planner/assignment.hpp"

#include <algorithm>

namespace stagecraft {
namespace {

struct Share {
  int type;
  int ranks;
};

// The best types first, each as many ranks as all replicas can have of it. Empty: not enough devices.
std::vector<Share> take(const std::vector<std::vector<DeviceId>>& by_type, const std::vector<int>& preference,
                        int ranks, int replicas) {
  std::vector<Share> shares;
  for (const int type : preference) {
    const int available = static_cast<int>(by_type[static_cast<std::size_t>(type)].size()) / replicas;
    const int taken = std::min(ranks, available);
    if (taken == 0) continue;
    shares.push_back({type, taken});
    ranks -= taken;
  }
  if (ranks > 0) shares.clear();
  return shares;
}

Assignment arrange(const std::vector<std::vector<DeviceId>>& by_type, const std::vector<Share>& shares, int replicas) {
  Assignment assignment;
  assignment.devices.resize(static_cast<std::size_t>(replicas));
  for (const Share& share : shares) {
    const auto& devices = by_type[static_cast<std::size_t>(share.type)];
    const auto count = static_cast<std::size_t>(share.ranks);
    assignment.types.insert(assignment.types.end(), count, share.type);
    for (std::size_t replica = 0; replica < assignment.devices.size(); ++replica) {
      const auto first = devices.begin() + static_cast<std::ptrdiff_t>(replica * count);
      auto& row = assignment.devices[replica];
      row.insert(row.end(), first, first + share.ranks);
    }
  }
  return assignment;
}

}  // namespace

std::vector<Assignment> assignments(const Cluster& cluster, std::span<const std::vector<int>> preferences, int ranks,
                                    int replicas) {
  constexpr std::size_t max_permuted = 4;
  std::vector<std::vector<DeviceId>> by_type(cluster.device_types.size());
  for (std::size_t device = 0; device < cluster.devices.size(); ++device) {
    by_type[static_cast<std::size_t>(cluster.devices[device].type)].push_back(
        DeviceId{static_cast<std::int32_t>(device)});
  }
  std::vector<Assignment> found;
  const auto add = [&](const std::vector<Share>& shares) {
    Assignment assignment = arrange(by_type, shares, replicas);
    if (std::find(found.begin(), found.end(), assignment) == found.end()) found.push_back(std::move(assignment));
  };
  for (const std::vector<int>& preference : preferences) {
    std::vector<Share> shares = take(by_type, preference, ranks, replicas);
    if (shares.empty()) continue;
    add(shares);
    if (shares.size() > max_permuted) {
      std::reverse(shares.begin(), shares.end());
      add(shares);
      continue;
    }
    const auto by_index = [](const Share& a, const Share& b) { return a.type < b.type; };
    std::sort(shares.begin(), shares.end(), by_index);
    do {
      add(shares);
    } while (std::next_permutation(shares.begin(), shares.end(), by_index));
  }
  return found;
}

}  // namespace stagecraft
