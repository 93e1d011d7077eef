// Rotary position embedding (Su et al. 2021) in the convention of Hugging Face's Llama ("rotate half"): in a head of
// size D the pair (x[i], x[i + D/2]) turns by the angle t * theta^(-2i/D) at position t.
//
// In place. In a packed (q | k | v) row the heads of q and k are neighbours, so one call with H + KV heads turns both.
#pragma once

#include <cstdint>

namespace stagecraft::kernels::cpu {

constexpr std::int64_t rope_table_floats(std::int64_t time, std::int64_t head_size) { return time * head_size; }

// Fills the table that the two functions below read: at each position D/2 cosines, then D/2 sines.
// REQUIRES: head_size is even.
void rope_table(float* table,  // (T, D)
                std::int64_t time, std::int64_t head_size, double theta);

// Row n of x holds position n % time; it starts at x + n * row_stride and has `heads` heads of head_size, packed.
void rope_forward(float* x,            // (B*T, heads, D), rows row_stride floats apart
                  const float* table,  // (T, D)
                  std::int64_t batch, std::int64_t time, std::int64_t heads, std::int64_t head_size,
                  std::int64_t row_stride);

// The inverse rotation, which is the gradient.
void rope_input_gradient(float* dx, const float* table, std::int64_t batch, std::int64_t time, std::int64_t heads,
                         std::int64_t head_size, std::int64_t row_stride);

}  // namespace stagecraft::kernels::cpu
