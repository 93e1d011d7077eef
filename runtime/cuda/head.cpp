#include "kernels/cuda/cross_entropy.hpp"
#include "runtime/cuda/linear.hpp"
#include "runtime/cuda/norm.hpp"
#include "runtime/cuda/operations.hpp"
#include "runtime/cuda/shard_group.hpp"

namespace stagecraft::cuda {
namespace {

// The forward already turns the logits into their gradient, in place: they are needed for nothing else.
template <class T>
class Head : public Layer {
 public:
  Head(const StageSpec& spec, const Engine& engine, std::span<const ParameterView> parameters)
      : engine_(engine),
        layout_(lay_out_head(spec)),
        region_(spec, engine),
        rows_(spec.shape.rows()),
        vocabulary_(spec.transformer.vocabulary),
        outputs_(padded_vocabulary(spec.transformer)),
        first_token_(spec.first_token),
        gradient_scale_(spec.gradient_scale),
        norm_(spec, engine, parameters),
        projection_(engine, rows_, spec.transformer.hidden, outputs_, false, parameters) {}

  void forward(const Pass& p) const override {
    norm_.forward(normed(p), statistics(p), reinterpret_cast<const T*>(p.input));
    projection_.forward(logits(p), region_.enter(normed(p), rows(p)));
    auto* const losses = reinterpret_cast<float*>(p.stash + layout_.losses);
    if (region_.split()) {
      shard_losses(p, losses);
    } else {
      kernels::cuda::cross_entropy_loss_and_gradient(losses, logits(p), p.tokens, rows_, vocabulary_, outputs_,
                                                     gradient_scale_, engine_.stream());
    }
    kernels::cuda::add_mean_loss(p.loss_sum, losses, rows_, engine_.stream());
  }

  void backward_input(const Pass& p) const override {
    T* const product = region_.product(d_normed(p), rows(p));
    projection_.input_gradient(product, logits(p));
    region_.leave(d_normed(p), product);
    norm_.input_gradient(reinterpret_cast<T*>(p.d_input), nullptr, d_normed(p), reinterpret_cast<const T*>(p.input),
                         statistics(p));
  }

  void backward_weight(const Pass& p) const override {
    // The table may be the embedding's, too, and is forgotten only after the step.
    projection_.weight_gradient(logits(p), region_.enter(normed(p), rows(p)), nullptr, Accumulate::yes);
    norm_.weight_gradient(d_normed(p), reinterpret_cast<const T*>(p.input), statistics(p), p.scratch + layout_.sums,
                          p.accumulate);
  }

  void prepare(std::span<std::byte> scratch) const override { projection_.prepare(scratch, {}); }

 private:
  // Over the vocabularies of all shards.
  void shard_losses(const Pass& p, float* losses) const {
    const TensorShard& shard = region_.shard();
    auto* const all = reinterpret_cast<float*>(p.scratch + layout_.statistics);
    const std::int64_t own = kernels::cuda::cross_entropy_statistics * rows_;
    float* const here = all + shard.index * own;
    kernels::cuda::cross_entropy_shard_statistics(here, logits(p), p.tokens, rows_, vocabulary_, outputs_, first_token_,
                                                  engine_.stream());
    region_.group().gather(all, here, own, Element::fp32);
    kernels::cuda::cross_entropy_shard_loss_and_gradient(losses, logits(p), all, p.tokens, shard.count, rows_,
                                                         vocabulary_, outputs_, first_token_, gradient_scale_,
                                                         engine_.stream());
  }

  T* rows(const Pass& p) const { return reinterpret_cast<T*>(p.scratch + layout_.rows); }
  T* normed(const Pass& p) const { return reinterpret_cast<T*>(p.stash + layout_.normed); }
  T* logits(const Pass& p) const { return reinterpret_cast<T*>(p.stash + layout_.logits); }
  T* d_normed(const Pass& p) const { return reinterpret_cast<T*>(p.gradients + layout_.d_normed); }
  float* statistics(const Pass& p) const { return reinterpret_cast<float*>(p.stash + layout_.norm_statistics); }

  Engine engine_;
  HeadLayout layout_;
  ParallelRegion<T> region_;
  std::int64_t rows_, vocabulary_, outputs_, first_token_;
  float gradient_scale_;
  Norm<T> norm_;
  Linear<T> projection_;
};

}  // namespace

template <class T>
std::unique_ptr<Layer> make_head(const StageSpec& spec, const Engine& engine,
                                 std::span<const ParameterView> parameters) {
  return std::make_unique<Head<T>>(spec, engine, parameters);
}
template std::unique_ptr<Layer> make_head<float>(const StageSpec&, const Engine&, std::span<const ParameterView>);
template std::unique_ptr<Layer> make_head<Bf16>(const StageSpec&, const Engine&, std::span<const ParameterView>);

}  // namespace stagecraft::cuda
