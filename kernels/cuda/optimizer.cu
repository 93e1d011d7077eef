#include <cmath>

#include "kernels/cuda/error.hpp"
#include "kernels/cuda/optimizer.hpp"
#include "kernels/cuda/vector.cuh"

namespace stagecraft::kernels::cuda {
namespace {

constexpr int threads = 256;
constexpr int width = 4;
constexpr int spans_per_thread = 8;
constexpr Index block_elements = Index{threads} * width * spans_per_thread;

template <class Tensor>
Index number_blocks(std::span<Tensor> tensors) {
  Index blocks = 0;
  for (Tensor& tensor : tensors) {
    tensor.first_block = blocks;
    blocks += (tensor.count + block_elements - 1) / block_elements;
  }
  return blocks;
}

// The tensor that block `block` works on: the last one whose first block is not after it. Empty tensors share their
// first block with the next and are never found.
template <class Tensor>
__device__ const Tensor& tensor_of(const Tensor* tensors, Index count, Index block) {
  Index low = 0;
  Index high = count;
  while (high - low > 1) {
    const Index middle = (low + high) / 2;
    if (tensors[middle].first_block <= block) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return tensors[low];
}

// Calls body(i, Constant<n>) for this thread's spans of the tensor.
template <class Body>
__device__ void for_each_of_block(Index first, Index count, const Body& body) {
#pragma unroll 2
  for (int span = 0; span < spans_per_thread; ++span) {
    const Index i = first + (Index{span} * threads + threadIdx.x) * width;
    if (i + width <= count) {
      body(i, Constant<width>{});
    } else {
      for (Index k = i; k < count; ++k) body(k, Constant<1>{});
    }
  }
}

__global__ void __launch_bounds__(threads)
    adamw_kernel(const AdamWTensor* tensors, Index count, const AdamWStep* step, const float* gradient_scale,
                 float beta1, float beta2, float epsilon) {
  const AdamWTensor t = tensor_of(tensors, count, blockIdx.x);
  const AdamWStep s = *step;
  const float scale = gradient_scale == nullptr ? 1.0F : *gradient_scale;
  const float keep = 1.0F - s.learning_rate * t.weight_decay;
  const Index first = (static_cast<Index>(blockIdx.x) - t.first_block) * block_elements;
  for_each_of_block(first, t.count, [&]<int n>(Index i, Constant<n>) {
    float master[n];
    float first_moment[n];
    float second_moment[n];
    float gradient[n];
    load(master, t.master + i);
    load(first_moment, t.first_moment + i);
    load(second_moment, t.second_moment + i);
    load(gradient, t.gradient + i);
#pragma unroll
    for (int k = 0; k < n; ++k) {
      const float g = scale * gradient[k];
      first_moment[k] = beta1 * first_moment[k] + (1.0F - beta1) * g;
      second_moment[k] = beta2 * second_moment[k] + (1.0F - beta2) * (g * g);
      const float root = sqrtf(second_moment[k]) * s.root_second_correction + epsilon;
      master[k] = keep * master[k] - s.corrected_rate * first_moment[k] / root;
    }
    store(t.master + i, master);
    store(t.first_moment + i, first_moment);
    store(t.second_moment + i, second_moment);
    if (t.weight != nullptr) store(t.weight + i, master);
  });
}

__global__ void __launch_bounds__(threads) sgd_kernel(const SgdTensor* tensors, Index count, const float* learning_rate,
                                                      const float* gradient_scale, float momentum) {
  const SgdTensor t = tensor_of(tensors, count, blockIdx.x);
  const float rate = *learning_rate;
  const float scale = gradient_scale == nullptr ? 1.0F : *gradient_scale;
  const Index first = (static_cast<Index>(blockIdx.x) - t.first_block) * block_elements;
  for_each_of_block(first, t.count, [&]<int n>(Index i, Constant<n>) {
    float master[n];
    float gradient[n];
    float velocity[n] = {};
    load(master, t.master + i);
    load(gradient, t.gradient + i);
    if (t.velocity != nullptr) load(velocity, t.velocity + i);
#pragma unroll
    for (int k = 0; k < n; ++k) {
      velocity[k] = momentum * velocity[k] + (scale * gradient[k] + t.weight_decay * master[k]);
      master[k] -= rate * velocity[k];
    }
    store(t.master + i, master);
    if (t.velocity != nullptr) store(t.velocity + i, velocity);
    if (t.weight != nullptr) store(t.weight + i, master);
  });
}

constexpr int norm_threads = 512;

__device__ double block_total(double x) {
  __shared__ double shared[norm_threads];
  shared[threadIdx.x] = x;
  for (int half = norm_threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  __syncthreads();
  return shared[0];
}

__global__ void __launch_bounds__(norm_threads) squares_kernel(double* partials, const float* x, Index count) {
  const Index vectors = count / width;
  const Index stride = static_cast<Index>(gridDim.x) * norm_threads;
  double sum = 0.0;
#pragma unroll 8
  for (Index i = static_cast<Index>(blockIdx.x) * norm_threads + threadIdx.x; i < vectors; i += stride) {
    float values[width];
    load(values, x + i * width);
    float squares = 0.0F;
#pragma unroll
    for (int k = 0; k < width; ++k) squares += values[k] * values[k];
    sum += static_cast<double>(squares);
  }
  const Index rest = vectors * width + threadIdx.x;
  if (blockIdx.x == 0 && rest < count) sum += static_cast<double>(x[rest]) * static_cast<double>(x[rest]);
  const double total = block_total(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

__global__ void __launch_bounds__(norm_threads)
    total_kernel(double* result, const double* partials, int count, bool accumulate) {
  double sum = 0.0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += norm_threads) sum += partials[i];
  const double total = block_total(sum);
  if (threadIdx.x == 0) *result = accumulate ? *result + total : total;
}

__global__ void clip_kernel(float* scale, const double* squared_norm, double max_norm) {
  const double norm = sqrt(*squared_norm);
  *scale = norm > max_norm ? static_cast<float>(max_norm / norm) : 1.0F;
}

}  // namespace

Index assign_blocks(std::span<AdamWTensor> tensors) { return number_blocks(tensors); }
Index assign_blocks(std::span<SgdTensor> tensors) { return number_blocks(tensors); }

AdamWStep adamw_step_values(const AdamW& options, Index step) {
  const double correction1 = 1.0 - std::pow(static_cast<double>(options.beta1), static_cast<double>(step));
  const double correction2 = 1.0 - std::pow(static_cast<double>(options.beta2), static_cast<double>(step));
  return {options.learning_rate, static_cast<float>(options.learning_rate / correction1),
          static_cast<float>(1.0 / std::sqrt(correction2))};
}

void adamw_step(const AdamWTensor* tensors, Index count, Index blocks, const AdamWStep* step,
                const float* gradient_scale, const AdamW& options, cudaStream_t stream) {
  if (blocks == 0) return;
  adamw_kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(tensors, count, step, gradient_scale,
                                                                      options.beta1, options.beta2, options.epsilon);
  check_launch("adamw_step");
}

void sgd_step(const SgdTensor* tensors, Index count, Index blocks, const float* learning_rate,
              const float* gradient_scale, float momentum, cudaStream_t stream) {
  if (blocks == 0) return;
  sgd_kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(tensors, count, learning_rate, gradient_scale,
                                                                    momentum);
  check_launch("sgd_step");
}

void squared_norm(double* result, const float* x, Index count, double* workspace, Accumulate accumulate,
                  cudaStream_t stream) {
  const Index wanted = (count + Index{norm_threads} * width - 1) / (Index{norm_threads} * width);
  const auto blocks = static_cast<unsigned>(wanted < 1                                ? 1
                                            : wanted > squared_norm_workspace_doubles ? squared_norm_workspace_doubles
                                                                                      : wanted);
  squares_kernel<<<blocks, norm_threads, 0, stream>>>(workspace, x, count);
  check_launch("squared_norm");
  total_kernel<<<1, norm_threads, 0, stream>>>(result, workspace, static_cast<int>(blocks),
                                               accumulate == Accumulate::yes);
  check_launch("squared_norm");
}

void clip_scale(float* scale, const double* squared_norm, float max_norm, cudaStream_t stream) {
  clip_kernel<<<1, 1, 0, stream>>>(scale, squared_norm, static_cast<double>(max_norm));
  check_launch("clip_scale");
}

}  // namespace stagecraft::kernels::cuda
