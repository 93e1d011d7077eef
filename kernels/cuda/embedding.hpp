// Token embedding with an optional learned position embedding: y[b, t] = token_table[tokens[b, t]] + position_table[t].
//
// The weight gradient adds rows in token order in a fixed grouping, so equal inputs give equal bits. With a part of the
// vocabulary (`held`) the table begins at its first token; other tokens count as zero rows, and their gradients go
// nowhere.
#pragma once

#include "kernels/cuda/types.hpp"
#include "kernels/types.hpp"

namespace stagecraft::kernels::cuda {

// position_table may be null. REQUIRES: every token is in [0, V); time <= maxT.
template <class T>
void embedding_forward(T* y,                        // (B*T, C)
                       const std::int32_t* tokens,  // (B, T)
                       const T* token_table,        // (V, C)
                       const T* position_table,     // (maxT, C) or null
                       std::int64_t batch, std::int64_t time, std::int64_t channels, cudaStream_t stream,
                       TokenRange held = {});

// Bytes of workspace, which is aligned to 16 bytes.
std::size_t embedding_weight_gradient_workspace_bytes(std::int64_t batch, std::int64_t time, std::int64_t channels);

// Adds to d_token_table, of which it touches only the rows of tokens that occur, and, unless it is null, to
// d_position_table.
template <class T>
void embedding_weight_gradient(float* d_token_table,        // (V, C)
                               float* d_position_table,     // (maxT, C) or null
                               const std::int32_t* tokens,  // (B, T)
                               const T* dy,                 // (B*T, C)
                               std::int64_t batch, std::int64_t time, std::int64_t channels, void* workspace,
                               cudaStream_t stream, TokenRange held = {});

}  // namespace stagecraft::kernels::cuda
