// Token embedding with an optional learned position embedding: y[b, t] = token_table[tokens[b, t]] + position_table[t].
//
// The weight gradient adds rows in token order, so equal inputs give equal bits. With a part of the vocabulary (`held`)
// the table begins at its first token; other tokens count as zero rows, and their gradients go nowhere.
#pragma once

#include <cstdint>

#include "kernels/types.hpp"

namespace stagecraft::kernels::cpu {

// position_table may be null. REQUIRES: every token is in [0, V); time <= maxT.
void embedding_forward(float* y,                     // (B*T, C)
                       const std::int32_t* tokens,   // (B, T)
                       const float* token_table,     // (V, C)
                       const float* position_table,  // (maxT, C) or null
                       std::int64_t batch, std::int64_t time, std::int64_t channels, TokenRange held = {});

// Accumulates into d_token_table and, unless it is null, into d_position_table.
void embedding_weight_gradient(float* d_token_table,        // (V, C)
                               float* d_position_table,     // (maxT, C) or null
                               const std::int32_t* tokens,  // (B, T)
                               const float* dy,             // (B*T, C)
                               std::int64_t batch, std::int64_t time, std::int64_t channels, TokenRange held = {});

}  // namespace stagecraft::kernels::cpu
