// Optimizers over all tensors of a stage in one launch, and the norm that gradient clipping needs.
//
// Masters, moments and gradients are float; where `weight` is not null the new value is also written there, rounded to
// nearest even. AdamW thus moves 30 bytes a parameter: it reads master, moments and gradient and writes master, moments
// and weight. What changes from step to step is read from device memory, so that a captured graph can be replayed.
#pragma once

#include <span>

#include "kernels/cuda/types.hpp"
#include "kernels/types.hpp"

namespace stagecraft::kernels::cuda {

// (count) each.
struct AdamWTensor {
  float* master;
  float* first_moment;   // zero before step 1
  float* second_moment;  // zero before step 1
  const float* gradient;
  Bf16* weight;  // or null
  std::int64_t count;
  float weight_decay;            // decoupled: w -= learning_rate * weight_decay * w
  std::int64_t first_block = 0;  // set by assign_blocks
};

struct SgdTensor {
  float* master;
  float* velocity;  // zero before the first step; null if momentum is 0
  const float* gradient;
  Bf16* weight;  // or null
  std::int64_t count;
  float weight_decay;  // added to the gradient
  std::int64_t first_block = 0;
};

// Numbers the thread blocks that will work on the tensors; returns how many there are. Then the tensors are copied to
// the device.
std::int64_t assign_blocks(std::span<AdamWTensor> tensors);
std::int64_t assign_blocks(std::span<SgdTensor> tensors);

// Of one step of AdamW.
struct AdamWStep {
  float learning_rate;
  float corrected_rate;          // learning_rate / (1 - beta1^step)
  float root_second_correction;  // 1 / sqrt(1 - beta2^step)
};

// `step` counts from 1. options.weight_decay is not used: each tensor has its own.
AdamWStep adamw_step_values(const AdamW& options, std::int64_t step);

// Gradients are multiplied by *gradient_scale as they are read (clipping without another pass); null for 1.
// REQUIRES: `blocks` is what assign_blocks returned for these `count` tensors.
void adamw_step(const AdamWTensor* tensors,  // (count), device memory
                std::int64_t count, std::int64_t blocks,
                const AdamWStep* step,        // device memory
                const float* gradient_scale,  // device memory, or null
                const AdamW& options, cudaStream_t stream);

// velocity = momentum * velocity + gradient; w -= learning_rate * velocity.
void sgd_step(const SgdTensor* tensors, std::int64_t count, std::int64_t blocks,
              const float* learning_rate,   // device memory
              const float* gradient_scale,  // device memory, or null
              float momentum, cudaStream_t stream);

// Doubles of workspace for any count.
inline constexpr std::int64_t squared_norm_workspace_doubles = 1024;

// The sum of squares, added in double in an order that depends on the count alone; equal inputs give equal bits.
void squared_norm(double* result,  // (1)
                  const float* x,  // (count)
                  std::int64_t count, double* workspace, Accumulate accumulate, cudaStream_t stream);

// scale = min(1, max_norm / sqrt(squared_norm)).
void clip_scale(float* scale,                // (1)
                const double* squared_norm,  // (1)
                float max_norm, cudaStream_t stream);

}  // namespace stagecraft::kernels::cuda
