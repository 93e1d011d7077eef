// Softmax and cross-entropy in one: the loss of a row is log(sum(exp(logits))) - logits[target].
//
// Rows may be padded, which keeps them aligned for vector loads and for the matrix product that makes them: only the
// first V of row_stride columns count.
#pragma once

#include "kernels/cuda/types.hpp"

namespace stagecraft::kernels::cuda {

// REQUIRES: every target is in [0, V).
template <class T>
void cross_entropy_loss(float* losses,                // (N)
                        const T* logits,              // (N, V), rows row_stride apart
                        const std::int32_t* targets,  // (N)
                        std::int64_t rows, std::int64_t vocabulary, std::int64_t row_stride, cudaStream_t stream);

// Also overwrites logits with gradient_scale * (softmax - one_hot(target)), and with 0 in the padding.
template <class T>
void cross_entropy_loss_and_gradient(float* losses,                // (N)
                                     T* logits,                    // (N, row_stride), becomes dlogits
                                     const std::int32_t* targets,  // (N)
                                     std::int64_t rows, std::int64_t vocabulary, std::int64_t row_stride,
                                     float gradient_scale, cudaStream_t stream);

// The same where shards hold a part of the vocabulary each, V of it here, in two calls around an exchange: the sums of
// online softmax (Milakov and Gimelshein 2018, arXiv 1805.02867, section 3.1) over shards instead of blocks.
inline constexpr std::int64_t cross_entropy_statistics = 3;  // floats a row

// The maximum of the row here, the sum of exp(logit - that), and the target's logit (0 where the target, a number in
// the whole vocabulary, is not in [first, first + V)).
template <class T>
void cross_entropy_shard_statistics(float* statistics,            // (3, N)
                                    const T* logits,              // (N, V), rows row_stride apart
                                    const std::int32_t* targets,  // (N)
                                    std::int64_t rows, std::int64_t vocabulary, std::int64_t row_stride,
                                    std::int64_t first, cudaStream_t stream);

// Losses, the same bits on every shard, and logits overwritten with this shard's part of the gradient, and with 0 in
// the padding. `statistics`: of all shards.
template <class T>
void cross_entropy_shard_loss_and_gradient(float* losses,                // (N)
                                           T* logits,                    // (N, row_stride), becomes dlogits
                                           const float* statistics,      // (shards, 3, N)
                                           const std::int32_t* targets,  // (N)
                                           std::int64_t shards, std::int64_t rows, std::int64_t vocabulary,
                                           std::int64_t row_stride, std::int64_t first, float gradient_scale,
                                           cudaStream_t stream);

// sum_of_means += sum of the losses / N, added in double.
void add_mean_loss(double* sum_of_means,  // (1)
                   const float* losses,   // (N)
                   std::int64_t rows, cudaStream_t stream);

}  // namespace stagecraft::kernels::cuda
