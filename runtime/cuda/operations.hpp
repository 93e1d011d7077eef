// The layers of a transformer on a GPU: forward, input gradient and weight gradient, each callable on its own.
//
// A layer owns no memory. It reads weights through the views it was made with; what it keeps for the backward goes to
// the stash, what the input gradient leaves for the weight gradient to the gradients (layout.hpp has the offsets).
// Everything is enqueued on one stream and can be captured into a graph. T is the type of the activations: Bf16 or
// float, the latter multiplied as fp32 or tf32.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "kernels/cuda/cudnn_attention.hpp"
#include "kernels/cuda/linear.hpp"
#include "runtime/cuda/layout.hpp"

namespace stagecraft::cuda {

using kernels::cuda::Accumulate;
using kernels::cuda::Bf16;
using kernels::cuda::GemmShape;

class ShardGroup;

// Where and with what operations run.
struct Engine {
  kernels::cuda::GemmContext gemm;
  kernels::cuda::CudnnAttention* attention = nullptr;  // of Bf16
  const ShardGroup* shards = nullptr;                  // of the rank
  cudaStream_t stream() const { return gemm.stream; }
};

// One tensor of a layer, in the arena.
struct ParameterView {
  const std::byte* weight = nullptr;  // T
  float* gradient = nullptr;
};

// What a call works on.
struct Pass {
  const std::byte* input = nullptr;      // (n, C) T; the embedding has none
  std::byte* output = nullptr;           // (n, C) T; the head has none. Null in a recomputation, which needs no output
  const std::int32_t* tokens = nullptr;  // (N) tokens of the embedding, targets of the head
  double* loss_sum = nullptr;            // to which the head adds the mean of the micro-batch
  std::byte* stash = nullptr;
  const std::byte* d_output = nullptr;  // (n, C) T
  std::byte* d_input = nullptr;         // (n, C) T, overwritten
  std::byte* gradients = nullptr;
  std::byte* scratch = nullptr;
  std::int64_t slice = 0;  // which one of the samples' slices
  std::byte* cache =
      nullptr;  // with slices: what earlier ones left for this one, and the gradients that later ones did
  Accumulate accumulate = Accumulate::yes;  // whether weight gradients add to what is there; those of tables always do
};

class Layer {
 public:
  virtual ~Layer() = default;
  virtual void forward(const Pass& pass) const = 0;
  // Input, stash, d_output as in the forward and what followed it.
  virtual void backward_input(const Pass& pass) const = 0;
  // After backward_input.
  virtual void backward_weight(const Pass& pass) const = 0;
  // Chooses the algorithms of its matrix products and attention before the first call. `scratch` is overwritten.
  virtual void prepare(std::span<std::byte> scratch) const = 0;
};

// `parameters` in the order of layer_parameters; for a tied head the token table comes last.
template <class T>
std::unique_ptr<Layer> make_embedding(const StageSpec& spec, const Engine& engine,
                                      std::span<const ParameterView> parameters);
template <class T>
std::unique_ptr<Layer> make_block(const StageSpec& spec, const Engine& engine,
                                  std::span<const ParameterView> parameters, const float* rope_table);
// Gradients are those of gradient_scale * (sum over the rows).
template <class T>
std::unique_ptr<Layer> make_head(const StageSpec& spec, const Engine& engine,
                                 std::span<const ParameterView> parameters);

}  // namespace stagecraft::cuda
