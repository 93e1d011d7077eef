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
  Head(const Transformer& t, Shape shape, std::span<const ParameterView> parameters, float gradient_scale)
      : rows_(shape.rows()),
        channels_(t.hidden),
        vocabulary_(t.vocabulary),
        regression_(t.head == HeadKind::regression),
        outputs_(regression_ ? 1 : t.vocabulary),
        gradient_scale_(gradient_scale),
        norm_(t, rows_, parameters),
        projection_(rows_, channels_, outputs_, false, parameters) {}

  ModuleSizes sizes() const override {
    return {rows_ * channels_ + rows_ * outputs_ + norm_.statistics_floats(), rows_ * channels_,
            regression_ ? rows_ : 0};
  }

  double forward(const Pass& p) const override {
    norm_.forward(normed(p), statistics(p), p.input);
    projection_.forward(outputs(p), normed(p));
    if (!regression_) {
      return kernels::cpu::cross_entropy_loss_and_gradient(outputs(p), p.tokens, rows_, vocabulary_, gradient_scale_);
    }
    float* const targets = p.workspace;
    const float step = 2.0F / static_cast<float>(std::max<std::int64_t>(vocabulary_ - 1, 1));
    for (std::int64_t n = 0; n < rows_; ++n) targets[n] = static_cast<float>(p.tokens[n]) * step - 1.0F;
    return kernels::cpu::mean_squared_error_loss_and_gradient(outputs(p), targets, rows_, outputs_, gradient_scale_);
  }

  void backward_input(const Pass& p) const override {
    projection_.input_gradient(p.gradients, outputs(p));
    norm_.input_gradient(p.d_input, p.gradients, p.input, statistics(p));
  }

  void backward_weight(const Pass& p) const override {
    projection_.weight_gradient(outputs(p), normed(p));
    norm_.weight_gradient(p.gradients, p.input, statistics(p));
  }

 private:
  float* normed(const Pass& p) const { return p.stash; }                            // (N, C)
  float* outputs(const Pass& p) const { return p.stash + rows_ * channels_; }       // (N, outputs)
  float* statistics(const Pass& p) const { return outputs(p) + rows_ * outputs_; }  // (N) or (2, N)

  std::int64_t rows_, channels_, vocabulary_;
  bool regression_;
  std::int64_t outputs_;
  float gradient_scale_;
  Norm norm_;
  Linear projection_;
};

}  // namespace

std::unique_ptr<Module> make_head(const Transformer& transformer, Shape shape,
                                  std::span<const ParameterView> parameters, float gradient_scale) {
  return std::make_unique<Head>(transformer, shape, parameters, gradient_scale);
}

}  // namespace stagecraft::cpu
