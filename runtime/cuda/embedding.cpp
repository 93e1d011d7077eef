#include "kernels/cuda/embedding.hpp"

#include "kernels/cuda/error.hpp"
#include "runtime/cuda/operations.hpp"

namespace stagecraft::cuda {
namespace {

template <class T>
class Embedding : public Layer {
 public:
  Embedding(const StageSpec& spec, const Engine& engine, std::span<const ParameterView> parameters)
      : engine_(engine),
        shape_(spec.shape),
        channels_(spec.transformer.hidden),
        scratch_bytes_(embedding_scratch_bytes(spec)),
        tokens_(parameters[0]) {
    if (spec.transformer.position == PositionKind::learned) positions_ = parameters[1];
  }

  void forward(const Pass& p) const override {
    const T* const positions = weight(positions_);
    kernels::cuda::embedding_forward(reinterpret_cast<T*>(p.output), p.tokens, weight(tokens_),
                                     positions == nullptr ? nullptr : positions + first_position(p), shape_.microbatch,
                                     shape_.sequence, channels_, engine_.stream());
  }
  // Tokens have no gradient.
  void backward_input(const Pass&) const override {}
  void backward_weight(const Pass& p) const override {
    float* const d_positions = positions_.gradient;
    kernels::cuda::embedding_weight_gradient(tokens_.gradient,
                                             d_positions == nullptr ? nullptr : d_positions + first_position(p),
                                             p.tokens, reinterpret_cast<const T*>(p.d_output), shape_.microbatch,
                                             shape_.sequence, channels_, p.scratch, engine_.stream());
  }
  void prepare(std::span<std::byte>) const override {
    const std::size_t needed =
        kernels::cuda::embedding_weight_gradient_workspace_bytes(shape_.microbatch, shape_.sequence, channels_);
    if (static_cast<std::int64_t>(needed) <= scratch_bytes_) return;
    throw kernels::cuda::Error(
        fmt::format("the embedding's gradient needs {} bytes of scratch, the plan foresaw {}", needed, scratch_bytes_));
  }

 private:
  // Of the slice, in the table.
  std::int64_t first_position(const Pass& p) const { return p.slice * shape_.sequence * channels_; }
  static const T* weight(const ParameterView& view) { return reinterpret_cast<const T*>(view.weight); }

  Engine engine_;
  Shape shape_;
  std::int64_t channels_, scratch_bytes_;
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
