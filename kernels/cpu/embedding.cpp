#include "kernels/cpu/embedding.hpp"

#include "kernels/cpu/vector_math.hpp"

namespace stagecraft::kernels::cpu {

STAGECRAFT_VECTORISED void embedding_forward(float* y, const std::int32_t* tokens, const float* token_table,
                                             const float* position_table, std::int64_t batch, std::int64_t time,
                                             std::int64_t channels) {
  for (std::int64_t n = 0; n < batch * time; ++n) {
    const float* token = token_table + tokens[n] * channels;
    float* out = y + n * channels;
    if (position_table == nullptr) {
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c) out[c] = token[c];
    } else {
      const float* position = position_table + (n % time) * channels;
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c) out[c] = token[c] + position[c];
    }
  }
}

STAGECRAFT_VECTORISED void embedding_weight_gradient(float* d_token_table, float* d_position_table,
                                                     const std::int32_t* tokens, const float* dy, std::int64_t batch,
                                                     std::int64_t time, std::int64_t channels) {
  for (std::int64_t n = 0; n < batch * time; ++n) {
    const float* in = dy + n * channels;
    float* d_token = d_token_table + tokens[n] * channels;
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) d_token[c] += in[c];
    if (d_position_table == nullptr) continue;
    float* d_position = d_position_table + (n % time) * channels;
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) d_position[c] += in[c];
  }
}

}  // namespace stagecraft::kernels::cpu
