#include "kernels/cpu/optimizer.hpp"

#include <cmath>

#include "kernels/cpu/vector_math.hpp"

namespace stagecraft::kernels::cpu {

STAGECRAFT_VECTORISED void adamw_step(float* w, float* m, float* v, const float* dw, std::int64_t count,
                                      const AdamW& options, std::int64_t step, float gradient_scale) {
  const double correction1 = 1.0 - std::pow(static_cast<double>(options.beta1), static_cast<double>(step));
  const double correction2 = 1.0 - std::pow(static_cast<double>(options.beta2), static_cast<double>(step));
  const float rate = static_cast<float>(options.learning_rate / correction1);
  const float root_correction = static_cast<float>(1.0 / std::sqrt(correction2));
  const float keep = 1.0F - options.learning_rate * options.weight_decay;
  const float beta1 = options.beta1;
  const float beta2 = options.beta2;
  const float rest1 = 1.0F - beta1;
  const float rest2 = 1.0F - beta2;
  const float epsilon = options.epsilon;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = gradient_scale * dw[i];
    const float first = beta1 * m[i] + rest1 * g;
    const float second = beta2 * v[i] + rest2 * (g * g);
    m[i] = first;
    v[i] = second;
    w[i] = keep * w[i] - rate * first / (std::sqrt(second) * root_correction + epsilon);
  }
}

STAGECRAFT_VECTORISED void sgd_step(float* w, float* velocity, const float* dw, std::int64_t count, const Sgd& options,
                                    float gradient_scale) {
  const float rate = options.learning_rate;
  const float momentum = options.momentum;
  const float decay = options.weight_decay;
  if (velocity == nullptr) {
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) w[i] -= rate * (gradient_scale * dw[i] + decay * w[i]);
    return;
  }
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    velocity[i] = momentum * velocity[i] + (gradient_scale * dw[i] + decay * w[i]);
    w[i] -= rate * velocity[i];
  }
}

STAGECRAFT_VECTORISED double squared_norm(const float* x, std::int64_t count) {
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

}  // namespace stagecraft::kernels::cpu
