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

// Every way to share ranks out over these types; empty: more than `most`.
std::vector<std::vector<Share>> splits(const std::vector<std::vector<DeviceId>>& by_type, const std::vector<int>& types,
                                       int ranks, int replicas, std::size_t most) {
  std::vector<std::vector<Share>> open{{}}, found;
  for (const int type : types) {
    const int available = static_cast<int>(by_type[static_cast<std::size_t>(type)].size()) / replicas;
    std::vector<std::vector<Share>> longer;
    for (const std::vector<Share>& start : open) {
      int left = ranks;
      for (const Share& share : start) left -= share.ranks;
      for (int taken = 0; taken <= std::min(left, available); ++taken) {
        std::vector<Share>& next = longer.emplace_back(start);
        if (taken > 0) next.push_back({type, taken});
        if (taken < left) continue;
        found.push_back(next);
        longer.pop_back();
      }
    }
    open = std::move(longer);
    if (open.size() > most || found.size() > most) return {};
  }
  return found;
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
                                    int replicas, bool every_split) {
  constexpr std::size_t max_permuted = 4;
  constexpr std::size_t max_splits = 256;
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
  const auto add_orders = [&](std::vector<Share> shares) {
    if (shares.empty()) return;
    add(shares);
    if (shares.size() > max_permuted) {
      std::reverse(shares.begin(), shares.end());
      return add(shares);
    }
    const auto by_index = [](const Share& a, const Share& b) { return a.type < b.type; };
    std::sort(shares.begin(), shares.end(), by_index);
    do {
      add(shares);
    } while (std::next_permutation(shares.begin(), shares.end(), by_index));
  };
  for (const std::vector<int>& preference : preferences) add_orders(take(by_type, preference, ranks, replicas));
  if (!every_split) return found;
  for (const auto& shares : splits(by_type, preferences.front(), ranks, replicas, max_splits)) add_orders(shares);
  return found;
}

}  // namespace stagecraft
