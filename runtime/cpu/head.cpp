#include <algorithm>

#include "kernels/cpu/cross_entropy.hpp"
#include "kernels/cpu/mean_squared_error.hpp"
#include "runtime/cpu/linear.hpp"
#include "runtime/cpu/module.hpp"
#include "runtime/cpu/norm.hpp"

namespace stagecraft::cpu {
namespace {

// The forward already turns the outputs into their gradient, in place: they are needed for nothing else.
class Head : public Module {
 public:
  Head(const StageSpec& spec, const ShardGroup& group, std::span<const ParameterView> parameters)
      : region_(spec, group),
        rows_(spec.shape.rows()),
        channels_(spec.transformer.hidden),
        vocabulary_(spec.transformer.vocabulary),
        first_token_(spec.first_token),
        regression_(spec.transformer.head == HeadKind::regression),
        outputs_(regression_ ? 1 : vocabulary_),
        gradient_scale_(spec.gradient_scale),
        norm_(spec.transformer, region_.own_rows(), parameters),
        projection_(rows_, channels_, outputs_, false, parameters) {}

  ModuleSizes sizes() const override {
    const std::int64_t loss = regression_ ? rows_ : region_.split() ? shard_statistics() * region_.shard().count : 0;
    return {region_.own_floats() + rows_ * outputs_ + norm_.statistics_floats(), region_.own_floats(),
            std::max(loss, region_.buffer_floats()), 0};
  }

  double forward(const Pass& p) const override {
    norm_.forward(normed(p), statistics(p), p.input);
    projection_.forward(outputs(p), region_.enter(normed(p), p.workspace));
    if (!regression_) return cross_entropy(p);
    float* const targets = p.workspace;
    const float step = 2.0F / static_cast<float>(std::max<std::int64_t>(vocabulary_ - 1, 1));
    for (std::int64_t n = 0; n < rows_; ++n) targets[n] = static_cast<float>(p.tokens[n]) * step - 1.0F;
    return kernels::cpu::mean_squared_error_loss_and_gradient(outputs(p), targets, rows_, outputs_, gradient_scale_);
  }

  void backward_input(const Pass& p) const override {
    float* const d_normed = region_.product(p.gradients, p.workspace);
    projection_.input_gradient(d_normed, outputs(p));
    region_.leave(p.gradients, d_normed);
    norm_.input_gradient(p.d_input, p.gradients, p.input, statistics(p));
  }

  void backward_weight(const Pass& p) const override {
    projection_.weight_gradient(outputs(p), region_.enter(normed(p), p.workspace));
    norm_.weight_gradient(p.gradients, p.input, statistics(p));
  }

 private:
  float* normed(const Pass& p) const { return p.stash; }                            // (n, C)
  float* outputs(const Pass& p) const { return p.stash + region_.own_floats(); }    // (N, outputs)
  float* statistics(const Pass& p) const { return outputs(p) + rows_ * outputs_; }  // (n) or (2, n)
  std::int64_t shard_statistics() const { return kernels::cpu::cross_entropy_statistics * rows_; }

  // Over the vocabularies of all shards.
  double cross_entropy(const Pass& p) const {
    const TensorShard& shard = region_.shard();
    if (!region_.split()) {
      return kernels::cpu::cross_entropy_loss_and_gradient(outputs(p), p.tokens, rows_, vocabulary_, gradient_scale_);
    }
    float* const all = p.workspace;
    kernels::cpu::cross_entropy_shard_statistics(all + shard.index * shard_statistics(), outputs(p), p.tokens, rows_,
                                                 vocabulary_, first_token_);
    region_.group().gather({all, static_cast<std::size_t>(shard.count * shard_statistics())});
    return kernels::cpu::cross_entropy_shard_loss_and_gradient(outputs(p), all, p.tokens, shard.count, shard.index,
                                                               rows_, vocabulary_, first_token_, gradient_scale_);
  }

  ParallelRegion region_;
  std::int64_t rows_, channels_, vocabulary_, first_token_;
  bool regression_;
  std::int64_t outputs_;
  float gradient_scale_;
  Norm norm_;
  Linear projection_;
};

}  // namespace

std::unique_ptr<Module> make_head(const StageSpec& spec, const ShardGroup& group,
                                  std::span<const ParameterView> parameters) {
  return std::make_unique<Head>(spec, group, parameters);
}

}  // namespace stagecraft::cpu
