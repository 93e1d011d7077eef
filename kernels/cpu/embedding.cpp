#include "kernels/cpu/embedding.hpp"

#include "kernels/cpu/vector_math.hpp"

namespace stagecraft::kernels::cpu {
namespace {

// The token's row; null for one that is not held.
template <class Float>
STAGECRAFT_INLINE Float* row_of(Float* table, std::int32_t token, std::int64_t channels, TokenRange held) {
  const std::int64_t row = token - held.first;
  return row >= 0 && row < held.count ? table + row * channels : nullptr;
}

}  // namespace

STAGECRAFT_VECTORISED void embedding_forward(float* y, const std::int32_t* tokens, const float* token_table,
                                             const float* position_table, std::int64_t batch, std::int64_t time,
                                             std::int64_t channels, TokenRange held) {
  for (std::int64_t n = 0; n < batch * time; ++n) {
    const float* token = row_of(token_table, tokens[n], channels, held);
    const float* position = position_table == nullptr ? nullptr : position_table + (n % time) * channels;
    float* out = y + n * channels;
    if (token != nullptr && position != nullptr) {
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c) out[c] = token[c] + position[c];
      continue;
    }
    const float* only = token != nullptr ? token : position;
#pragma omp simd
    for (std::int64_t c = 0; c < channels; ++c) out[c] = only != nullptr ? only[c] : 0.0F;
  }
}

STAGECRAFT_VECTORISED void embedding_weight_gradient(float* d_token_table, float* d_position_table,
                                                     const std::int32_t* tokens, const float* dy, std::int64_t batch,
                                                     std::int64_t time, std::int64_t channels, TokenRange held) {
  for (std::int64_t n = 0; n < batch * time; ++n) {
    const float* in = dy + n * channels;
    float* d_position = d_position_table == nullptr ? nullptr : d_position_table + (n % time) * channels;
    for (float* out : {row_of(d_token_table, tokens[n], channels, held), d_position}) {
      if (out == nullptr) continue;
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c) out[c] += in[c];
    }
  }
}

}  // namespace stagecraft::kernels::cpu
