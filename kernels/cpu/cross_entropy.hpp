// Softmax and cross-entropy in one: the loss of a row is log(sum(exp(logits))) - logits[target].
//
// Losses are summed in double in row order.
#pragma once

#include <cstdint>

namespace stagecraft::kernels::cpu {

// Returns the mean loss of the rows. REQUIRES: rows > 0; every target is in [0, V).
double cross_entropy_loss(const float* logits,          // (N, V)
                          const std::int32_t* targets,  // (N)
                          std::int64_t rows, std::int64_t vocabulary);

// Returns the mean loss and overwrites logits with gradient_scale * (softmax - one_hot(target)). For the gradient of
// the mean over a step of M micro-batches of N rows each, gradient_scale is 1 / (M * N).
double cross_entropy_loss_and_gradient(float* logits,                // (N, V), becomes dlogits
                                       const std::int32_t* targets,  // (N)
                                       std::int64_t rows, std::int64_t vocabulary, float gradient_scale);

// The same where shards hold a part of the vocabulary each, V of it here, in two calls around an exchange: the sums of
// online softmax (Milakov and Gimelshein 2018, arXiv 1805.02867, section 3.1) over shards instead of blocks.
inline constexpr std::int64_t cross_entropy_statistics = 3;  // floats a row

// Overwrites logits with exp(logit - maximum of the row here), and writes that maximum, the sum of the row here, and
// the target's logit (0 where the target, a number in the whole vocabulary, is not in [first, first + V)).
void cross_entropy_shard_statistics(float* statistics,            // (3, N)
                                    float* logits,                // (N, V)
                                    const std::int32_t* targets,  // (N)
                                    std::int64_t rows, std::int64_t vocabulary, std::int64_t first);

// Returns the mean loss, the same bits on every shard, and turns what the first call left of the logits into their
// gradient. `statistics`: of all shards, in their order; `shard`: which of them this is.
double cross_entropy_shard_loss_and_gradient(float* logits,                // (N, V), becomes dlogits
                                             const float* statistics,      // (shards, 3, N)
                                             const std::int32_t* targets,  // (N)
                                             std::int64_t shards, std::int64_t shard, std::int64_t rows,
                                             std::int64_t vocabulary, std::int64_t first, float gradient_scale);

}  // namespace stagecraft::kernels::cpu
