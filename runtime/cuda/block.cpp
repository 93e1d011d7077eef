#include "kernels/cuda/attention.hpp"
#include "kernels/cuda/error.hpp"
#include "kernels/cuda/gelu.hpp"
#include "kernels/cuda/rope.hpp"
#include "kernels/cuda/swiglu.hpp"
#include "runtime/cuda/linear.hpp"
#include "runtime/cuda/norm.hpp"
#include "runtime/cuda/operations.hpp"
#include "runtime/cuda/shard_group.hpp"

namespace stagecraft::cuda {
namespace {

// Attention through cuDNN where it has an engine, else the plain kernels. A slice of a sequence sees the keys and
// values of earlier ones in the cache, and finds there what the backwards of later ones owe to it.
template <class T>
class Attention {
 public:
  Attention(const StageSpec& spec, const Engine& engine, const BlockLayout& layout)
      : engine_(engine), slices_(spec.shape.slices), workspace_bytes_(layout.attention_bytes) {
    const Transformer& t = spec.transformer;
    queries_ = t.heads * t.head_size, keys_ = t.kv_heads * t.head_size;
    const std::int64_t packed = queries_ + 2 * keys_;
    shape_ = {spec.shape.microbatch, spec.shape.sequence, t.heads, t.kv_heads, t.head_size, packed, packed};
    if (slices_ > 1) {
      shape_.kv_stride = 2 * keys_, shape_.kv_time = spec.shape.whole_sequence();
      d_cache_ = (layout.d_cache - layout.cache) / static_cast<std::int64_t>(sizeof(T));
    }
    library_ = sizeof(T) == 2 && t.head_size % 8 == 0 && t.head_size <= 128 && slices_ == 1;
  }

  // qkv: packed (q | k | v) rows
  void forward(T* o, float* log_sum, T* qkv, const Pass& p, std::byte* workspace) const {
    if (slices_ > 1) copy_rows(reinterpret_cast<T*>(p.cache), qkv, p.slice, true);
    const T* const k = slices_ > 1 ? reinterpret_cast<const T*>(p.cache) : qkv + queries_;
    const T* const v = k + keys_;
    if constexpr (sizeof(T) == 2) {
      if (library_) return engine_.attention->forward(o, log_sum, qkv, k, v, shape_, workspace, engine_.stream());
    }
    kernels::cuda::attention_forward(o, log_sum, qkv, k, v, shape_of(p.slice), engine_.stream());
  }
  void input_gradient(T* d_qkv, const T* d_o, const T* o, const float* log_sum, const T* qkv, const Pass& p,
                      std::byte* workspace) const {
    T* const cache = reinterpret_cast<T*>(p.cache);
    const T* const k = slices_ > 1 ? cache : qkv + queries_;
    const T* const v = k + keys_;
    T* const dk = slices_ > 1 ? cache + d_cache_ : d_qkv + queries_;
    T* const dv = dk + keys_;
    if constexpr (sizeof(T) == 2) {
      if (library_) {
        return engine_.attention->input_gradient(d_qkv, dk, dv, d_o, o, log_sum, qkv, k, v, shape_, workspace,
                                                 engine_.stream());
      }
    }
    kernels::cuda::attention_input_gradient(d_qkv, dk, dv, d_o, o, log_sum, qkv, k, v, shape_of(p.slice),
                                            reinterpret_cast<float*>(workspace), engine_.stream(),
                                            p.slice + 1 < slices_);
    if (slices_ > 1) copy_rows(dk, d_qkv, p.slice, false);
  }
  void prepare() const {
    const std::size_t needed =
        library_ ? engine_.attention->prepare(shape_)
                 : 4 * static_cast<std::size_t>(kernels::cuda::attention_input_gradient_workspace_floats(shape_));
    if (static_cast<std::int64_t>(needed) <= workspace_bytes_) return;
    throw kernels::cuda::Error(
        fmt::format("attention needs {} bytes of workspace, the plan foresaw {}", needed, workspace_bytes_));
  }

 private:
  kernels::AttentionShape shape_of(std::int64_t slice) const {
    kernels::AttentionShape shape = shape_;
    shape.past = slice * shape.time;
    return shape;
  }

  // The slice's keys and values between packed rows and the cache, or its gradients.
  void copy_rows(T* cache, T* packed, std::int64_t slice, bool into_cache) const {
    const auto pitch = [](std::int64_t elements) { return static_cast<std::size_t>(elements) * sizeof(T); };
    for (std::int64_t b = 0; b < shape_.batch; ++b) {
      T* const cached = cache + (b * shape_.kv_time + slice * shape_.time) * shape_.kv_stride;
      T* const row = packed + b * shape_.time * shape_.q_stride + queries_;
      const std::size_t cached_pitch = pitch(shape_.kv_stride), row_pitch = pitch(shape_.q_stride);
      STAGECRAFT_CUDA_CHECK(cudaMemcpy2DAsync(into_cache ? cached : row, into_cache ? cached_pitch : row_pitch,
                                              into_cache ? row : cached, into_cache ? row_pitch : cached_pitch,
                                              pitch(2 * keys_), static_cast<std::size_t>(shape_.time),
                                              cudaMemcpyDeviceToDevice, engine_.stream()));
    }
  }

  Engine engine_;
  std::int64_t slices_, workspace_bytes_, queries_ = 0, keys_ = 0, d_cache_ = 0;
  kernels::AttentionShape shape_{};
  bool library_ = false;
};

template <class T>
class Block : public Layer {
 public:
  Block(const StageSpec& spec, const Engine& engine, std::span<const ParameterView> parameters, const float* rope_table)
      : engine_(engine),
        at_(lay_out_block(spec)),
        region_(spec, engine),
        shape_(spec.shape),
        transformer_(spec.transformer),
        swiglu_(transformer_.activation == ActivationKind::swiglu),
        rope_table_(rope_table),
        attention_(spec, engine, at_),
        attention_norm_(spec, engine, parameters),
        qkv_(engine, rows(), transformer_.hidden, packed_width(), transformer_.qkv_bias, parameters),
        projection_(engine, rows(), transformer_.heads * transformer_.head_size, transformer_.hidden,
                    transformer_.linear_bias, parameters),
        mlp_norm_(spec, engine, parameters),
        up_(engine, rows(), transformer_.hidden, swiglu_ ? 2 * transformer_.ffn : transformer_.ffn,
            transformer_.linear_bias, parameters),
        down_(engine, rows(), transformer_.ffn, transformer_.hidden, transformer_.linear_bias, parameters) {}

  void forward(const Pass& p) const override {
    std::byte* const s = p.stash;
    const T* const x = reinterpret_cast<const T*>(p.input);
    attention_norm_.forward(at(s, at_.normed), floats(s, at_.norm_statistics), x);
    qkv_.forward(at(s, at_.qkv), region_.enter(at(s, at_.normed), rows(p)));
    rotate(at(s, at_.qkv), p.slice, kernels::cuda::rope_forward<T>);
    attention_.forward(at(s, at_.attended), floats(s, at_.log_sum), at(s, at_.qkv), p, p.scratch + at_.attention);
    add_product(at(s, at_.middle), x, projection_, at(s, at_.attended), p);

    mlp_norm_.forward(at(s, at_.mlp_normed), floats(s, at_.mlp_statistics), at(s, at_.middle));
    activate(p);
    if (p.output == nullptr) return;
    add_product(reinterpret_cast<T*>(p.output), at(s, at_.middle), down_, at(s, at_.activated), p);
  }

  void backward_input(const Pass& p) const override {
    std::byte* const s = p.stash;
    std::byte* const g = p.gradients;
    const T* const dy = reinterpret_cast<const T*>(p.d_output);
    activate_gradient(p, region_.enter(dy, at(g, at_.d_output_rows)));
    sum_input_gradient(at(g, at_.d_mlp_normed), up_, at(g, at_.d_up), p);
    mlp_norm_.input_gradient(at(g, at_.d_middle), dy, at(g, at_.d_mlp_normed), at(s, at_.middle),
                             floats(s, at_.mlp_statistics));

    T* const d_attended = at(p.scratch, at_.d_attended);
    projection_.input_gradient(d_attended, region_.enter(at(g, at_.d_middle), at(g, at_.d_middle_rows)));
    attention_.input_gradient(at(g, at_.d_qkv), d_attended, at(s, at_.attended), floats(s, at_.log_sum), at(s, at_.qkv),
                              p, p.scratch + at_.attention);
    rotate(at(g, at_.d_qkv), p.slice, kernels::cuda::rope_input_gradient<T>);
    sum_input_gradient(at(g, at_.d_normed), qkv_, at(g, at_.d_qkv), p);
    attention_norm_.input_gradient(reinterpret_cast<T*>(p.d_input), at(g, at_.d_middle), at(g, at_.d_normed),
                                   reinterpret_cast<const T*>(p.input), floats(s, at_.norm_statistics));
  }

  void backward_weight(const Pass& p) const override {
    std::byte* const s = p.stash;
    std::byte* const g = p.gradients;
    std::byte* const sums = p.scratch + at_.sums;
    // The rows of the gradients are still together; those of the inputs come again, so that none are kept.
    const bool together = region_.shard().sequence_parallel;
    const T* const dy = together ? at(g, at_.d_output_rows) : reinterpret_cast<const T*>(p.d_output);
    down_.weight_gradient(dy, at(s, at_.activated), sums, p.accumulate);
    up_.weight_gradient(at(g, at_.d_up), region_.enter(at(s, at_.mlp_normed), rows(p)), sums, p.accumulate);
    mlp_norm_.weight_gradient(at(g, at_.d_mlp_normed), at(s, at_.middle), floats(s, at_.mlp_statistics), sums,
                              p.accumulate);
    projection_.weight_gradient(at(g, together ? at_.d_middle_rows : at_.d_middle), at(s, at_.attended), sums,
                                p.accumulate);
    qkv_.weight_gradient(at(g, at_.d_qkv), region_.enter(at(s, at_.normed), rows(p)), sums, p.accumulate);
    attention_norm_.weight_gradient(at(g, at_.d_normed), reinterpret_cast<const T*>(p.input),
                                    floats(s, at_.norm_statistics), sums, p.accumulate);
  }

  void prepare(std::span<std::byte> scratch) const override {
    attention_.prepare();
    qkv_.prepare(scratch, {});
    projection_.prepare(scratch, {.adds = !region_.split(), .bias = region_.first()});
    up_.prepare(scratch, {.bias = swiglu_, .gelu = fused_gelu()});
    down_.prepare(scratch, {.adds = !region_.split(), .bias = region_.first(), .gelu_gradient = fused_gelu()});
  }

 private:
  std::int64_t rows() const { return shape_.rows(); }
  std::int64_t packed_width() const {
    return (transformer_.heads + 2 * transformer_.kv_heads) * transformer_.head_size;
  }
  T* rows(const Pass& p) const { return at(p.scratch, at_.rows); }
  static T* at(std::byte* base, std::int64_t offset) { return reinterpret_cast<T*>(base + offset); }
  static float* floats(std::byte* base, std::int64_t offset) { return reinterpret_cast<float*>(base + offset); }

  // y = residual + x W^T + b, the product over all shards.
  void add_product(T* y, const T* residual, const Linear<T>& linear, const T* x, const Pass& p) const {
    if (!region_.split()) return linear.forward_add(y, residual, x);
    T* const product = region_.product(y, rows(p));
    linear.forward_summand(product, x, region_.first());
    region_.leave(y, product, residual);
  }

  // dx = dy W, over all shards.
  void sum_input_gradient(T* dx, const Linear<T>& linear, const T* dy, const Pass& p) const {
    T* const product = region_.product(dx, rows(p));
    linear.input_gradient(product, dy);
    region_.leave(dx, product);
  }

  // The products of bf16 apply GELU themselves; the library asks for rows of whole vectors.
  bool fused_gelu() const { return sizeof(T) == 2 && !swiglu_ && transformer_.ffn % 8 == 0; }

  // The MLP up to its activation.
  void activate(const Pass& p) const {
    std::byte* const s = p.stash;
    const T* const x = region_.enter(at(s, at_.mlp_normed), rows(p));
    if constexpr (sizeof(T) == 2) {
      if (fused_gelu()) return up_.forward_gelu(at(s, at_.activated), at(s, at_.up), x);
    }
    if (swiglu_) {
      up_.forward(at(s, at_.up), x);
      kernels::cuda::swiglu_forward(at(s, at_.activated), at(s, at_.up), rows(), transformer_.ffn, engine_.stream());
    } else {
      up_.forward_without_bias(at(s, at_.up), x);
      kernels::cuda::gelu_forward(at(s, at_.activated), at(s, at_.up), up_.bias(), rows(), transformer_.ffn,
                                  engine_.stream());
    }
  }

  // From the block's output back through the activation.
  void activate_gradient(const Pass& p, const T* dy) const {
    std::byte* const s = p.stash;
    T* const d_up = at(p.gradients, at_.d_up);
    if constexpr (sizeof(T) == 2) {
      if (fused_gelu()) return down_.input_gradient_gelu(d_up, dy, at(s, at_.up));
    }
    if (swiglu_) {
      T* const d_activated = at(p.scratch, at_.d_activated);
      down_.input_gradient(d_activated, dy);
      kernels::cuda::swiglu_input_gradient(d_up, d_activated, at(s, at_.up), rows(), transformer_.ffn,
                                           engine_.stream());
    } else {
      down_.input_gradient(d_up, dy);
      kernels::cuda::gelu_input_gradient(d_up, d_up, at(s, at_.up), up_.bias(), rows(), transformer_.ffn,
                                         engine_.stream());
    }
  }

  // Queries and keys are neighbours in a row and turn in one call.
  template <class Rotation>
  void rotate(T* packed, std::int64_t slice, Rotation rotation) const {
    if (rope_table_ == nullptr) return;
    const float* const table = rope_table_ + slice * shape_.sequence * transformer_.head_size;
    rotation(packed, table, shape_.microbatch, shape_.sequence, transformer_.heads + transformer_.kv_heads,
             transformer_.head_size, packed_width(), engine_.stream());
  }

  Engine engine_;
  BlockLayout at_;
  ParallelRegion<T> region_;
  Shape shape_;
  Transformer transformer_;
  bool swiglu_;
  const float* rope_table_;
  Attention<T> attention_;
  Norm<T> attention_norm_;
  Linear<T> qkv_, projection_;
  Norm<T> mlp_norm_;
  Linear<T> up_, down_;
};

}  // namespace

template <class T>
std::unique_ptr<Layer> make_block(const StageSpec& spec, const Engine& engine,
                                  std::span<const ParameterView> parameters, const float* rope_table) {
  return std::make_unique<Block<T>>(spec, engine, parameters, rope_table);
}
template std::unique_ptr<Layer> make_block<float>(const StageSpec&, const Engine&, std::span<const ParameterView>,
                                                  const float*);
template std::unique_ptr<Layer> make_block<Bf16>(const StageSpec&, const Engine&, std::span<const ParameterView>,
                                                 const float*);

}  // namespace stagecraft::cuda
