#include "kernels/cpu/cross_entropy.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/vector_math.hpp"

namespace stagecraft::kernels::cpu {

STAGECRAFT_VECTORISED double cross_entropy_loss(const float* logits, const std::int32_t* targets, std::int64_t rows,
                                                std::int64_t vocabulary) {
  double total = 0.0;
  for (std::int64_t n = 0; n < rows; ++n) {
    const float* row = logits + n * vocabulary;
    float maximum = row[0];
#pragma omp simd reduction(max : maximum)
    for (std::int64_t i = 0; i < vocabulary; ++i) maximum = row[i] > maximum ? row[i] : maximum;
    float sum = 0.0F;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < vocabulary; ++i) sum += softmax_exp(row[i] - maximum);
    total += std::log(static_cast<double>(sum)) - (static_cast<double>(row[targets[n]]) - maximum);
  }
  return total / static_cast<double>(rows);
}

STAGECRAFT_VECTORISED double cross_entropy_loss_and_gradient(float* logits, const std::int32_t* targets,
                                                             std::int64_t rows, std::int64_t vocabulary,
                                                             float gradient_scale) {
  double total = 0.0;
  for (std::int64_t n = 0; n < rows; ++n) {
    float* row = logits + n * vocabulary;
    const float at_target = row[targets[n]];
    float maximum = 0.0F;
    const float sum = exponentiate_row(row, vocabulary, maximum);
    total += std::log(static_cast<double>(sum)) - (static_cast<double>(at_target) - maximum);
    const float factor = gradient_scale / sum;
#pragma omp simd
    for (std::int64_t i = 0; i < vocabulary; ++i) row[i] *= factor;
    row[targets[n]] -= gradient_scale;
  }
  return total / static_cast<double>(rows);
}

STAGECRAFT_VECTORISED void cross_entropy_shard_statistics(float* statistics, float* logits, const std::int32_t* targets,
                                                          std::int64_t rows, std::int64_t vocabulary,
                                                          std::int64_t first) {
  for (std::int64_t n = 0; n < rows; ++n) {
    float* row = logits + n * vocabulary;
    const std::int64_t target = targets[n] - first;
    statistics[2 * rows + n] = target >= 0 && target < vocabulary ? row[target] : 0.0F;
    float maximum = 0.0F;
    statistics[rows + n] = exponentiate_row(row, vocabulary, maximum);
    statistics[n] = maximum;
  }
}

STAGECRAFT_VECTORISED double cross_entropy_shard_loss_and_gradient(float* logits, const float* statistics,
                                                                   const std::int32_t* targets, std::int64_t shards,
                                                                   std::int64_t shard, std::int64_t rows,
                                                                   std::int64_t vocabulary, std::int64_t first,
                                                                   float gradient_scale) {
  double total = 0.0;
  for (std::int64_t n = 0; n < rows; ++n) {
    const auto of = [&](std::int64_t which, std::int64_t kind) {
      return statistics[(which * cross_entropy_statistics + kind) * rows + n];
    };
    float maximum = of(0, 0);
    for (std::int64_t s = 1; s < shards; ++s) maximum = std::max(maximum, of(s, 0));
    float sum = 0.0F, at_target = 0.0F;
    for (std::int64_t s = 0; s < shards; ++s) {
      sum += of(s, 1) * std::exp(of(s, 0) - maximum);
      at_target += of(s, 2);
    }
    total += std::log(static_cast<double>(sum)) - (static_cast<double>(at_target) - maximum);
    const float factor = gradient_scale * std::exp(of(shard, 0) - maximum) / sum;
    float* row = logits + n * vocabulary;
#pragma omp simd
    for (std::int64_t i = 0; i < vocabulary; ++i) row[i] *= factor;
    const std::int64_t target = targets[n] - first;
    if (target >= 0 && target < vocabulary) row[target] -= gradient_scale;
  }
  return total / static_cast<double>(rows);
}

}  // namespace stagecraft::kernels::cpu
