// The workers of a run: one for every device of the plan, numbered as the plan's rows of devices are.
#pragma once

#include <fmt/format.h>

#include <string>

#include "models/plan.hpp"
#include "runtime/tensor_shard.hpp"

namespace stagecraft {

struct WorkerPlace {
  int replica = 0;
  int shard = 0;  // of the rank
  int rank = 0;
};

inline int worker_count(const Plan& plan) { return static_cast<int>(plan.devices.size()) * plan.ranks(); }

// The row of devices that a shard of a replica is on.
inline int device_row(const Plan& plan, const WorkerPlace& place) {
  return place.replica * plan.shards() + place.shard;
}
inline int worker_number(const Plan& plan, const WorkerPlace& place) {
  return device_row(plan, place) * plan.ranks() + place.rank;
}
inline WorkerPlace worker_place(const Plan& plan, int worker) {
  const int row = worker / plan.ranks();
  return {row / plan.shards(), row % plan.shards(), worker % plan.ranks()};
}

// "rank 1", "rank 1, shard 0".
inline std::string worker_name(const Plan& plan, int worker) {
  const WorkerPlace place = worker_place(plan, worker);
  return plan.shards() == 1 ? fmt::format("rank {}", place.rank)
                            : fmt::format("rank {}, shard {}", place.rank, place.shard);
}

inline TensorShard tensor_shard(const Plan& plan, int shard) {
  return {plan.layout.tensor, shard, plan.layout.tensor > 1 && plan.layout.sequence_parallel};
}

}  // namespace stagecraft
