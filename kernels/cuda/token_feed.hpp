// The device takes what it computes with from the host's memory when it gets there: a host that is a step ahead need
// not enqueue a copy for each micro-batch.
#pragma once

#include "kernels/cuda/types.hpp"

namespace stagecraft::kernels::cuda {

// to[i] = values[*position * count + i], and then *position += 1. `values` is memory that the device can read, the
// host's included; `position` is the device's.
void take_next(std::int32_t* to, const std::int32_t* values, std::int64_t count, std::int32_t* position,
               cudaStream_t stream);

}  // namespace stagecraft::kernels::cuda
