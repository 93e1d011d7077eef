// Clusters by name, as every subcommand takes them.
#pragma once

#include <string>

#include "models/cluster/cluster.hpp"
#include "runtime/cuda/local_gpu.hpp"

namespace stagecraft {

// "local-gpu" and its slices, or what load_cluster knows.
inline Cluster cluster_named(const std::string& name) {
  return cuda::is_local_gpu(name) ? cuda::local_gpu(name) : load_cluster(name);
}

}  // namespace stagecraft
