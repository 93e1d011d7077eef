// The GPUs of this machine as a cluster, whole or cut into slices.
#pragma once

#include <string>
#include <vector>

#include "models/cluster/cluster.hpp"
#include "runtime/cuda/module.hpp"

namespace stagecraft::cuda {

// "local-gpu" describes the GPUs that are here; "local-gpu:slices=4" each cut into four equal slices,
// "local-gpu:slices=64+32+32" each into slices of so many multiprocessors.
bool is_local_gpu(const std::string& name);

// Throws bad_input for a name that is_local_gpu but not one of those, or slices that do not fit; device without a GPU.
Cluster local_gpu(const std::string& name);
// The same of given GPUs.
Cluster describe(const std::string& name, const std::vector<Gpu>& gpus);

}  // namespace stagecraft::cuda
