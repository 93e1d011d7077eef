#include "kernels/cuda/embedding.hpp"

#include "kernels/cuda/error.hpp"
#include "runtime/cuda/operations.hpp"
#include "runtime/cuda/shard_group.hpp"

namespace stagecraft::cuda {
namespace {

template <class T>
class Embedding : public Layer {
 public:
  Embedding(const StageSpec& spec, const Engine& engine, std::span<const ParameterView> parameters)
      : engine_(engine),
        layout_(lay_out_embedding(spec)),
        region_(spec, engine),
        shape_(spec.shape),
        channels_(spec.transformer.hidden),
        held_{spec.first_token, spec.transformer.vocabulary},
        tokens_(parameters[0]) {
    if (spec.transformer.position == PositionKind::learned) positions_ = parameters[1];
  }

  void forward(const Pass& p) const override {
    T* const output = reinterpret_cast<T*>(p.output);
    T* const product = region_.product(output, rows(p));
    // One shard adds the positions to the sum.
    const T* const positions = region_.first() ? weight(positions_) : nullptr;
    kernels::cuda::embedding_forward(product, p.tokens, weight(tokens_),
                                     positions == nullptr ? nullptr : positions + first_position(p), shape_.microbatch,
                                     shape_.sequence, channels_, engine_.stream(), held_);
    region_.leave(output, product);
  }
  // Tokens have no gradient.
  void backward_input(const Pass&) const override {}
  void backward_weight(const Pass& p) const override {
    float* const d_positions = positions_.gradient;
    kernels::cuda::embedding_weight_gradient(
        tokens_.gradient, d_positions == nullptr ? nullptr : d_positions + first_position(p), p.tokens,
        region_.enter(reinterpret_cast<const T*>(p.d_output), rows(p)), shape_.microbatch, shape_.sequence, channels_,
        p.scratch + layout_.sorting, engine_.stream(), held_);
  }
  void prepare(std::span<std::byte>) const override {
    const std::size_t needed =
        kernels::cuda::embedding_weight_gradient_workspace_bytes(shape_.microbatch, shape_.sequence, channels_);
    if (static_cast<std::int64_t>(needed) <= layout_.sorting_bytes) return;
    throw kernels::cuda::Error(fmt::format("the embedding's gradient needs {} bytes of scratch, the plan foresaw {}",
                                           needed, layout_.sorting_bytes));
  }

 private:
  // Of the slice, in the table.
  std::int64_t first_position(const Pass& p) const { return p.slice * shape_.sequence * channels_; }
  T* rows(const Pass& p) const { return reinterpret_cast<T*>(p.scratch + layout_.rows); }
  static const T* weight(const ParameterView& view) { return reinterpret_cast<const T*>(view.weight); }

  Engine engine_;
  EmbeddingLayout layout_;
  ParallelRegion<T> region_;
  Shape shape_;
  std::int64_t channels_;
  stagecraft::kernels::TokenRange held_;
  ParameterView tokens_, positions_;
};

}  // namespace

template <class T>
std::unique_ptr<Layer> make_embedding(const StageSpec& spec, const Engine& engine,
                                      std::span<const ParameterView> parameters) {
  return std::make_unique<Embedding<T>>(spec, engine, parameters);
}
template std::unique_ptr<Layer> make_embedding<float>(const StageSpec&, const Engine&, std::span<const ParameterView>);
template std::unique_ptr<Layer> make_embedding<Bf16>(const StageSpec&, const Engine&, std::span<const ParameterView>);

}  // namespace stagecraft::cuda
