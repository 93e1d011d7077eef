// Plain values that every implementation of the operations takes, whatever the device.
#pragma once

#include <cstdint>
#include <limits>

namespace stagecraft::kernels {

// Causal attention with grouped queries: query head h reads key and value head h / (heads / kv_heads).
struct AttentionShape {
  std::int64_t batch;      // B
  std::int64_t time;       // T
  std::int64_t heads;      // H, a multiple of kv_heads
  std::int64_t kv_heads;   // KV
  std::int64_t head_size;  // D
  std::int64_t q_stride;   // elements from a row of q (and dq) to the next, >= H*D
  std::int64_t kv_stride;  // elements from a row of k, v (and dk, dv) to the next, >= KV*D
  // The queries may be a slice of a longer sequence, whose earlier keys and values are there, too.
  std::int64_t past = 0;     // keys before that of the first query
  std::int64_t kv_time = 0;  // rows of k and v a sample, >= past + T; 0: T
};

// Part of a vocabulary, [first, first + count), whose table's rows are at hand; the others are with other shards.
struct TokenRange {
  std::int64_t first = 0;
  std::int64_t count = std::numeric_limits<std::int32_t>::max();
};

// Loshchilov and Hutter 2019, algorithm 2, with PyTorch's placement of epsilon.
struct AdamW {
  float learning_rate;
  float beta1 = 0.9F;
  float beta2 = 0.999F;
  float epsilon = 1e-8F;
  float weight_decay = 0.0F;  // decoupled: w -= learning_rate * weight_decay * w
};

struct Sgd {
  float learning_rate;
  float momentum = 0.0F;
  float weight_decay = 0.0F;  // added to the gradient, as in PyTorch
};

// One tensor's random numbers.
struct RandomStream {
  std::uint64_t seed;
  std::uint64_t tensor;  // which tensor of the network, the caller's numbering
};

}  // namespace stagecraft::kernels
