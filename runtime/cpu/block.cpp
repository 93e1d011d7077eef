#include <algorithm>

#include "kernels/cpu/attention.hpp"
#include "kernels/cpu/elementwise.hpp"
#include "kernels/cpu/gelu.hpp"
#include "kernels/cpu/rope.hpp"
#include "kernels/cpu/swiglu.hpp"
#include "runtime/cpu/carver.hpp"
#include "runtime/cpu/linear.hpp"
#include "runtime/cpu/module.hpp"
#include "runtime/cpu/norm.hpp"

namespace stagecraft::cpu {
namespace {

// Letters: A = heads * head_size, K = kv_heads * head_size, F ffn, U = F or, for SwiGLU, 2F; of this shard.
class Block : public Module {
 public:
  // `t` and `shape` are the spec's.
  Block(const StageSpec& spec, const Transformer& t, const Shape& shape, const ShardGroup& group,
        std::span<const ParameterView> parameters, const float* rope_table)
      : region_(spec, group),
        rows_(shape.rows()),
        channels_(t.hidden),
        queries_(t.heads * t.head_size),
        keys_(t.kv_heads * t.head_size),
        ffn_(t.ffn),
        swiglu_(t.activation == ActivationKind::swiglu),
        up_outputs_(swiglu_ ? 2 * t.ffn : t.ffn),
        rope_table_(rope_table),
        slices_(shape.slices),
        attention_{shape.microbatch,
                   shape.sequence,
                   t.heads,
                   t.kv_heads,
                   t.head_size,
                   queries_ + 2 * keys_,
                   shape.slices > 1 ? 2 * keys_ : queries_ + 2 * keys_,
                   0,
                   shape.whole_sequence()},
        attention_norm_(t, region_.own_rows(), parameters),
        qkv_(rows_, channels_, queries_ + 2 * keys_, t.qkv_bias, parameters),
        projection_(rows_, queries_, channels_, t.linear_bias, parameters),
        mlp_norm_(t, region_.own_rows(), parameters),
        up_(rows_, channels_, up_outputs_, t.linear_bias, parameters),
        down_(rows_, ffn_, channels_, t.linear_bias, parameters),
        keep_probabilities_(spec.recompute != Recompute::selective && !spec.fused_attention && shape.slices == 1) {
    lay_out();
  }

  ModuleSizes sizes() const override { return sizes_; }

  double forward(const Pass& p) const override {
    float* const s = p.stash;
    attention_norm_.forward(s + normed_, s + norm_statistics_, p.input);
    qkv_.forward(s + qkv_at_, region_.enter(s + normed_, p.workspace));
    rotate(s + qkv_at_, p.slice, kernels::cpu::rope_forward);
    const float* const q = s + qkv_at_;
    if (slices_ > 1) {
      for_each_row(p.slice, [&](std::int64_t row, std::int64_t cached) {
        kernels::cpu::copy(p.cache + cached, q + row + queries_, 2 * keys_);
      });
    }
    const float* const k = slices_ > 1 ? p.cache : q + queries_;
    kernels::cpu::attention_forward(s + attended_, probabilities(s), q, k, k + keys_, shape_of(p.slice), p.workspace);
    add_product(s + middle_, p.input, projection_, s + attended_, p.workspace);

    mlp_norm_.forward(s + mlp_normed_, s + mlp_statistics_, s + middle_);
    up_.forward(s + up_at_, region_.enter(s + mlp_normed_, p.workspace));
    if (swiglu_) {
      kernels::cpu::swiglu_forward(s + activated_, s + up_at_, rows_, ffn_);
    } else {
      kernels::cpu::gelu_forward(s + activated_, s + up_at_, rows_ * ffn_);
    }
    if (p.output != nullptr) add_product(p.output, s + middle_, down_, s + activated_, p.workspace);
    return 0;
  }

  void backward_input(const Pass& p) const override {
    const float* const s = p.stash;
    float* const g = p.gradients;
    const float* const d_output = region_.enter(p.d_output, g + d_output_rows_);
    if (swiglu_) {
      down_.input_gradient(p.workspace, d_output);
      kernels::cpu::swiglu_input_gradient(g + d_up_, p.workspace, s + up_at_, rows_, ffn_);
    } else {
      down_.input_gradient(g + d_up_, d_output);
      kernels::cpu::gelu_input_gradient(g + d_up_, g + d_up_, s + up_at_, rows_ * ffn_);
    }
    sum_input_gradient(g + d_mlp_normed_, up_, g + d_up_, p.workspace);
    kernels::cpu::copy(g + d_middle_, p.d_output, region_.own_floats());
    mlp_norm_.input_gradient_add(g + d_middle_, g + d_mlp_normed_, s + middle_, s + mlp_statistics_);

    float* const d_attended = p.workspace;
    projection_.input_gradient(d_attended, region_.enter(g + d_middle_, g + d_middle_rows_));
    const float* const q = s + qkv_at_;
    float* const dq = g + d_qkv_;
    const float* const k = slices_ > 1 ? p.cache : q + queries_;
    float* const dk = slices_ > 1 ? p.d_cache : dq + queries_;
    // Later slices ran their backwards before, and left in dk and dv what they owe to this one.
    const bool add = p.slice + 1 < slices_;
    kernels::cpu::attention_input_gradient(dq, dk, dk + keys_, d_attended, probabilities(s), q, k, k + keys_,
                                           shape_of(p.slice), p.workspace + rows_ * queries_, add);
    if (slices_ > 1) {
      for_each_row(p.slice, [&](std::int64_t row, std::int64_t cached) {
        kernels::cpu::copy(dq + row + queries_, p.d_cache + cached, 2 * keys_);
      });
    }
    rotate(dq, p.slice, kernels::cpu::rope_input_gradient);
    sum_input_gradient(g + d_normed_, qkv_, dq, p.workspace);
    kernels::cpu::copy(p.d_input, g + d_middle_, region_.own_floats());
    attention_norm_.input_gradient_add(p.d_input, g + d_normed_, p.input, s + norm_statistics_);
  }

  void backward_weight(const Pass& p) const override {
    const float* const s = p.stash;
    const float* const g = p.gradients;
    // The rows of the gradients are still together; those of the inputs come again, so that none are kept.
    const bool own = !region_.shard().sequence_parallel;
    down_.weight_gradient(own ? p.d_output : g + d_output_rows_, s + activated_);
    up_.weight_gradient(g + d_up_, region_.enter(s + mlp_normed_, p.workspace));
    mlp_norm_.weight_gradient(g + d_mlp_normed_, s + middle_, s + mlp_statistics_);
    projection_.weight_gradient(g + (own ? d_middle_ : d_middle_rows_), s + attended_);
    qkv_.weight_gradient(g + d_qkv_, region_.enter(s + normed_, p.workspace));
    attention_norm_.weight_gradient(g + d_normed_, p.input, s + norm_statistics_);
  }

 private:
  void lay_out() {
    const std::int64_t hidden = region_.own_floats(), packed = rows_ * (queries_ + 2 * keys_);
    Carver stash;
    normed_ = stash.take(hidden);
    norm_statistics_ = stash.take(attention_norm_.statistics_floats());
    qkv_at_ = stash.take(packed);
    attended_ = stash.take(rows_ * queries_);
    middle_ = stash.take(hidden);
    mlp_normed_ = stash.take(hidden);
    mlp_statistics_ = stash.take(mlp_norm_.statistics_floats());
    up_at_ = stash.take(rows_ * up_outputs_);
    activated_ = stash.take(rows_ * ffn_);
    if (keep_probabilities_) probabilities_ = stash.take(kernels::cpu::attention_probability_floats(attention_));
    Carver gradients;
    d_up_ = gradients.take(rows_ * up_outputs_);
    d_mlp_normed_ = gradients.take(hidden);
    d_middle_ = gradients.take(hidden);
    d_qkv_ = gradients.take(packed);
    d_normed_ = gradients.take(hidden);
    d_output_rows_ = gradients.take(region_.buffer_floats());
    d_middle_rows_ = gradients.take(region_.buffer_floats());
    const std::int64_t attention = rows_ * queries_ + kernels::cpu::attention_workspace_floats(shape_of(slices_ - 1));
    const std::int64_t cache = slices_ > 1 ? 2 * attention_.batch * attention_.kv_time * 2 * keys_ : 0;
    sizes_ = {stash.size(), gradients.size(),
              std::max({attention, swiglu_ ? rows_ * ffn_ : 0, region_.buffer_floats()}), cache};
  }

  // y = residual + x W^T + b, the product over all shards.
  void add_product(float* y, const float* residual, const Linear& linear, const float* x, float* workspace) const {
    if (!region_.split()) {
      kernels::cpu::copy(y, residual, rows_ * channels_);
      return linear.forward_add(y, x);
    }
    float* const product = region_.product(y, workspace);
    linear.forward_summand(product, x, region_.first());
    region_.leave(y, product);
    kernels::cpu::accumulate(y, residual, region_.own_floats());
  }

  // dx = dy W, over all shards.
  void sum_input_gradient(float* dx, const Linear& linear, const float* dy, float* workspace) const {
    float* const product = region_.product(dx, workspace);
    linear.input_gradient(product, dy);
    region_.leave(dx, product);
  }

  kernels::AttentionShape shape_of(std::int64_t slice) const {
    kernels::AttentionShape shape = attention_;
    shape.past = slice * attention_.time;
    return shape;
  }

  // Offsets of the slice's rows in packed (q | k | v) and in the cache.
  template <class Body>
  void for_each_row(std::int64_t slice, Body&& body) const {
    for (std::int64_t b = 0; b < attention_.batch; ++b) {
      for (std::int64_t t = 0; t < attention_.time; ++t) {
        const std::int64_t cached = b * attention_.kv_time + slice * attention_.time + t;
        body((b * attention_.time + t) * attention_.q_stride, cached * attention_.kv_stride);
      }
    }
  }

  template <class Float>
  Float* probabilities(Float* stash) const {
    return keep_probabilities_ ? stash + probabilities_ : nullptr;
  }

  // Queries and keys are neighbours in a row and turn in one call.
  template <class Rotation>
  void rotate(float* packed, std::int64_t slice, Rotation rotation) const {
    if (rope_table_ == nullptr) return;
    const float* const table = rope_table_ + slice * attention_.time * attention_.head_size;
    rotation(packed, table, attention_.batch, attention_.time, attention_.heads + attention_.kv_heads,
             attention_.head_size, attention_.q_stride);
  }

  ParallelRegion region_;
  std::int64_t rows_, channels_, queries_, keys_, ffn_;
  bool swiglu_;
  std::int64_t up_outputs_;
  const float* rope_table_;
  std::int64_t slices_;
  kernels::AttentionShape attention_;
  Norm attention_norm_;
  Linear qkv_, projection_;
  Norm mlp_norm_;
  Linear up_, down_;
  bool keep_probabilities_;
  ModuleSizes sizes_;
  // Offsets into the stash.
  std::int64_t normed_ = 0;           // (n, C)
  std::int64_t norm_statistics_ = 0;  // (n) or (2, n)
  std::int64_t qkv_at_ = 0;           // (N, A + 2K), rotated
  std::int64_t attended_ = 0;         // (N, A)
  std::int64_t middle_ = 0;           // (n, C), x2
  std::int64_t mlp_normed_ = 0;       // (n, C)
  std::int64_t mlp_statistics_ = 0;   // (n) or (2, n)
  std::int64_t up_at_ = 0;            // (N, U)
  std::int64_t activated_ = 0;        // (N, F)
  std::int64_t probabilities_ = 0;    // (B, H, T, T)
  // Offsets into the gradients.
  std::int64_t d_up_ = 0;           // (N, U)
  std::int64_t d_mlp_normed_ = 0;   // (n, C)
  std::int64_t d_middle_ = 0;       // (n, C)
  std::int64_t d_qkv_ = 0;          // (N, A + 2K)
  std::int64_t d_normed_ = 0;       // (n, C)
  std::int64_t d_output_rows_ = 0;  // (N, C), with sequence parallelism
  std::int64_t d_middle_rows_ = 0;  // (N, C), with sequence parallelism
};

}  // namespace

std::unique_ptr<Module> make_block(const StageSpec& spec, const ShardGroup& group,
                                   std::span<const ParameterView> parameters, const float* rope_table) {
  return std::make_unique<Block>(spec, spec.transformer, spec.shape, group, parameters, rope_table);
}

}  // namespace stagecraft::cpu
