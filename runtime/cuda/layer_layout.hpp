// What one layer holds on a GPU, and where in the memory that it is given. Sizes and offsets are in bytes; every tensor
// starts at a multiple of 256. Letters of shapes as in layout.hpp; T is the type of the activations.
#pragma once

#include <cstdint>

#include "runtime/stage_spec.hpp"

namespace stagecraft::cuda {

inline constexpr std::int64_t alignment = 256;
constexpr std::int64_t float_bytes = 4;
constexpr std::int64_t aligned(std::int64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

// Lays out tensors one after the other.
class Carver {
 public:
  // The offset of the next `bytes`.
  std::int64_t take(std::int64_t bytes) {
    const std::int64_t offset = size_;
    size_ += aligned(bytes);
    return offset;
  }
  // Goes on behind `bytes`, where that is further.
  void reach(std::int64_t bytes) { size_ = size_ < bytes ? aligned(bytes) : size_; }
  std::int64_t size() const { return size_; }

 private:
  std::int64_t size_ = 0;
};

// Of the activations: 2 for bf16, else 4.
std::int64_t element_bytes(const StageSpec& spec);

// Rows of a token table in memory: multiples of this keep the rows of the logits aligned for the matrix products. The
// padding is zero and stays zero.
inline constexpr std::int64_t vocabulary_multiple = 128;
std::int64_t padded_vocabulary(const Transformer& transformer);

// Offsets into a block's stash, gradients and scratch. T is the type of the activations.
struct BlockLayout {
  // Stash, from the forward to the weight gradient.
  std::int64_t normed = 0;           // (n, C) T
  std::int64_t norm_statistics = 0;  // (2, n) float
  std::int64_t qkv = 0;              // (N, A + 2K) T, rotated
  std::int64_t log_sum = 0;          // (B, H, T) float
  std::int64_t attended = 0;         // (N, A) T
  std::int64_t middle = 0;           // (n, C) T, between attention and MLP
  std::int64_t mlp_normed = 0;       // (n, C) T
  std::int64_t mlp_statistics = 0;   // (2, n) float
  std::int64_t up = 0;               // (N, U) T; for GELU of float without its bias
  std::int64_t activated = 0;        // (N, F) T
  std::int64_t stash_bytes = 0;
  // With slices, over all of a sample's: keys and values, and as much for their gradients. From the first slice's
  // forward to its input gradient.
  std::int64_t cache = 0, d_cache = 0;  // (B, whole T, 2K) T
  std::int64_t cache_bytes = 0;
  // From the input gradient to the weight gradient.
  std::int64_t d_up = 0;          // (N, U) T
  std::int64_t d_mlp_normed = 0;  // (n, C) T
  std::int64_t d_middle = 0;      // (n, C) T
  std::int64_t d_qkv = 0;         // (N, A + 2K) T
  std::int64_t d_normed = 0;      // (n, C) T
  // With sequence parallelism: all rows of the gradients of the output and of `middle`.
  std::int64_t d_output_rows = 0, d_middle_rows = 0;  // (N, C) T
  std::int64_t gradient_bytes = 0;
  // Within a call.
  std::int64_t d_attended = 0;   // (N, A) T
  std::int64_t d_activated = 0;  // (N, F) T, for SwiGLU; shares its place with the two around it
  std::int64_t attention = 0;    // the attention's workspace
  std::int64_t attention_bytes = 0;
  std::int64_t sums = 0;  // of the sums down columns
  std::int64_t sums_bytes = 0;
  std::int64_t rows = 0;  // (N, C) T, with sequence parallelism: all rows of what has the shard's elsewhere
  std::int64_t scratch_bytes = 0;
};
BlockLayout lay_out_block(const StageSpec& spec);

struct HeadLayout {
  std::int64_t normed = 0;           // (n, C) T
  std::int64_t norm_statistics = 0;  // (2, n) float
  std::int64_t logits = 0;           // (N, V padded) T: their gradient after the forward
  std::int64_t losses = 0;           // (N) float
  std::int64_t stash_bytes = 0;
  std::int64_t d_normed = 0;  // (n, C) T
  std::int64_t gradient_bytes = 0;
  std::int64_t sums = 0;
  std::int64_t statistics = 0;  // (shards, 3, N) float, with several
  std::int64_t rows = 0;        // as a block's
  std::int64_t scratch_bytes = 0;
};
HeadLayout lay_out_head(const StageSpec& spec);

struct EmbeddingLayout {
  std::int64_t sorting = 0, sorting_bytes = 0;
  std::int64_t rows = 0;  // as a block's
  std::int64_t scratch_bytes = 0;
};
EmbeddingLayout lay_out_embedding(const StageSpec& spec);

}  // namespace stagecraft::cuda
