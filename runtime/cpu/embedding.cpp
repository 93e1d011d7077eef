#include "kernels/cpu/embedding.hpp"

#include "runtime/cpu/module.hpp"

namespace stagecraft::cpu {
namespace {

class Embedding : public Module {
 public:
  Embedding(const StageSpec& spec, const ShardGroup& group, std::span<const ParameterView> parameters)
      : region_(spec, group),
        shape_(spec.shape),
        channels_(spec.transformer.hidden),
        held_{spec.first_token, spec.transformer.vocabulary},
        tokens_(parameters[0]) {
    if (spec.transformer.position == PositionKind::learned) positions_ = parameters[1];
  }

  ModuleSizes sizes() const override { return {0, 0, region_.buffer_floats(), 0}; }

  double forward(const Pass& pass) const override {
    float* const rows = region_.product(pass.output, pass.workspace);
    // One shard adds the positions to the sum.
    const float* const positions = region_.first() ? at(positions_.value, pass) : nullptr;
    kernels::cpu::embedding_forward(rows, pass.tokens, tokens_.value, positions, shape_.microbatch, shape_.sequence,
                                    channels_, held_);
    region_.leave(pass.output, rows);
    return 0;
  }
  // Tokens have no gradient.
  void backward_input(const Pass&) const override {}
  void backward_weight(const Pass& pass) const override {
    kernels::cpu::embedding_weight_gradient(tokens_.gradient, at(positions_.gradient, pass), pass.tokens,
                                            region_.enter(pass.d_output, pass.workspace), shape_.microbatch,
                                            shape_.sequence, channels_, held_);
  }

 private:
  // The positions begin where the slice does.
  template <class Float>
  Float* at(Float* positions, const Pass& pass) const {
    return positions == nullptr ? nullptr : positions + pass.slice * shape_.sequence * channels_;
  }

  ParallelRegion region_;
  Shape shape_;
  std::int64_t channels_;
  kernels::TokenRange held_;
  ParameterView tokens_, positions_;
};

}  // namespace

std::unique_ptr<Module> make_embedding(const StageSpec& spec, const ShardGroup& group,
                                       std::span<const ParameterView> parameters) {
  return std::make_unique<Embedding>(spec, group, parameters);
}

}  // namespace stagecraft::cpu
