#include "kernels/cpu/mean_squared_error.hpp"

namespace stagecraft::kernels::cpu {

double mean_squared_error_loss(const float* predictions, const float* targets, std::int64_t rows,
                               std::int64_t outputs) {
  double total = 0.0;
  for (std::int64_t i = 0; i < rows * outputs; ++i) {
    const double error = static_cast<double>(predictions[i]) - static_cast<double>(targets[i]);
    total += error * error;
  }
  return total / static_cast<double>(rows * outputs);
}

double mean_squared_error_loss_and_gradient(float* predictions, const float* targets, std::int64_t rows,
                                            std::int64_t outputs, float gradient_scale) {
  const double loss = mean_squared_error_loss(predictions, targets, rows, outputs);
  const float factor = gradient_scale * 2.0F / static_cast<float>(outputs);
  for (std::int64_t i = 0; i < rows * outputs; ++i) predictions[i] = factor * (predictions[i] - targets[i]);
  return loss;
}

}  // namespace stagecraft::kernels::cpu
