// Storage types of the CUDA operations.
//
// Activations and the weights that forward and backward read are stored as T, float or Bf16; arithmetic, statistics and
// gradients of weights are float. Arguments have the meaning, order and shapes of the functions of the same name under
// kernels/cpu; what CUDA adds comes last: workspace, accumulate, stream.
//
// Every operation is enqueued on `stream` and returns at once. It allocates nothing, uses no other stream and can be
// captured into a CUDA graph; the same inputs give the same bits. Pointers are aligned to 16 bytes (those of a Buffer,
// and any offset that is a multiple of 8 elements). Errors of launching throw Error.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace stagecraft::kernels::cuda {

using Bf16 = __nv_bfloat16;

// Whether the gradient of a weight replaces what is there (the first micro-batch of a step) or adds to it.
enum class Accumulate { no, yes };

}  // namespace stagecraft::kernels::cuda
