#include "kernels/cpu/embedding.hpp"

#include "runtime/cpu/module.hpp"

namespace stagecraft::cpu {
namespace {

class Embedding : public Module {
 public:
  Embedding(const Transformer& t, Shape shape, std::span<const ParameterView> parameters)
      : shape_(shape), channels_(t.hidden), tokens_(parameters[0]) {
    if (t.position == PositionKind::learned) positions_ = parameters[1];
  }

  ModuleSizes sizes() const override { return {}; }

  double forward(const Pass& pass) const override {
    kernels::cpu::embedding_forward(pass.output, pass.tokens, tokens_.value, at(positions_.value, pass),
                                    shape_.microbatch, shape_.sequence, channels_);
    return 0;
  }
  // Tokens have no gradient.
  void backward_input(const Pass&) const override {}
  void backward_weight(const Pass& pass) const override {
    kernels::cpu::embedding_weight_gradient(tokens_.gradient, at(positions_.gradient, pass), pass.tokens, pass.d_output,
                                            shape_.microbatch, shape_.sequence, channels_);
  }

 private:
  // The positions begin where the slice does.
  template <class Float>
  Float* at(Float* positions, const Pass& pass) const {
    return positions == nullptr ? nullptr : positions + pass.slice * shape_.sequence * channels_;
  }

  Shape shape_;
  std::int64_t channels_;
  ParameterView tokens_, positions_;
};

}  // namespace

std::unique_ptr<Module> make_embedding(const Transformer& transformer, Shape shape,
                                       std::span<const ParameterView> parameters) {
  return std::make_unique<Embedding>(transformer, shape, parameters);
}

}  // namespace stagecraft::cpu
