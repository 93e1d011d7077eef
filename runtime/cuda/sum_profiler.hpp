// Times of sums over two whole GPUs, over sizes.
#pragma once

#include "models/profile.hpp"
#include "runtime/cuda/module.hpp"

namespace stagecraft::cuda {

// As the shards of a rank sum, over NCCL and inside a graph. The link's fit is that on which a ring of two takes as
// long. REQUIRES: two GPUs; load_module().has_nccl().
LinkProfile profile_sums(const DevicePlace& first, const DevicePlace& second);

}  // namespace stagecraft::cuda
