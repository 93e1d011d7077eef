#include "kernels/reference.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace stagecraft::kernels::reference {

void embedding_forward(double* y, Tokens tokens, const double* token_table, const double* position_table, Index batch,
                       Index time, Index channels) {
  for (Index n = 0; n < batch * time; ++n) {
    for (Index c = 0; c < channels; ++c) {
      y[n * channels + c] = token_table[tokens[n] * channels + c];
      if (position_table != nullptr) y[n * channels + c] += position_table[n % time * channels + c];
    }
  }
}

void embedding_weight_gradient(double* d_token_table, double* d_position_table, Tokens tokens, const double* dy,
                               Index batch, Index time, Index channels) {
  for (Index n = 0; n < batch * time; ++n) {
    for (Index c = 0; c < channels; ++c) {
      d_token_table[tokens[n] * channels + c] += dy[n * channels + c];
      if (d_position_table != nullptr) d_position_table[n % time * channels + c] += dy[n * channels + c];
    }
  }
}

void layer_norm_forward(double* y, double* mean, double* rstd, const double* x, const double* gamma, const double* beta,
                        Index rows, Index channels, double epsilon) {
  const auto width = static_cast<double>(channels);
  for (Index n = 0; n < rows; ++n) {
    const double* row = x + n * channels;
    double sum = 0;
    for (Index c = 0; c < channels; ++c) sum += row[c];
    mean[n] = sum / width;
    double squares = 0;
    for (Index c = 0; c < channels; ++c) squares += (row[c] - mean[n]) * (row[c] - mean[n]);
    rstd[n] = 1 / std::sqrt(squares / width + epsilon);
    for (Index c = 0; c < channels; ++c) y[n * channels + c] = (row[c] - mean[n]) * rstd[n] * gamma[c] + beta[c];
  }
}

void layer_norm_input_gradient_add(double* dx, const double* dy, const double* x, const double* gamma,
                                   const double* mean, const double* rstd, Index rows, Index channels) {
  const auto width = static_cast<double>(channels);
  for (Index n = 0; n < rows; ++n) {
    double g_mean = 0;
    double g_xhat_mean = 0;
    for (Index c = 0; c < channels; ++c) {
      const Index i = n * channels + c;
      g_mean += dy[i] * gamma[c] / width;
      g_xhat_mean += dy[i] * gamma[c] * (x[i] - mean[n]) * rstd[n] / width;
    }
    for (Index c = 0; c < channels; ++c) {
      const Index i = n * channels + c;
      dx[i] += rstd[n] * (dy[i] * gamma[c] - g_mean - (x[i] - mean[n]) * rstd[n] * g_xhat_mean);
    }
  }
}

void layer_norm_weight_gradient(double* d_gamma, double* d_beta, const double* dy, const double* x, const double* mean,
                                const double* rstd, Index rows, Index channels) {
  for (Index n = 0; n < rows; ++n) {
    for (Index c = 0; c < channels; ++c) {
      const Index i = n * channels + c;
      d_gamma[c] += dy[i] * (x[i] - mean[n]) * rstd[n];
      d_beta[c] += dy[i];
    }
  }
}

void rms_norm_forward(double* y, double* rstd, const double* x, const double* gamma, Index rows, Index channels,
                      double epsilon) {
  for (Index n = 0; n < rows; ++n) {
    double squares = 0;
    for (Index c = 0; c < channels; ++c) squares += x[n * channels + c] * x[n * channels + c];
    rstd[n] = 1 / std::sqrt(squares / static_cast<double>(channels) + epsilon);
    for (Index c = 0; c < channels; ++c) y[n * channels + c] = x[n * channels + c] * rstd[n] * gamma[c];
  }
}

void rms_norm_input_gradient_add(double* dx, const double* dy, const double* x, const double* gamma, const double* rstd,
                                 Index rows, Index channels) {
  for (Index n = 0; n < rows; ++n) {
    double g_xhat_mean = 0;
    for (Index c = 0; c < channels; ++c) {
      const Index i = n * channels + c;
      g_xhat_mean += dy[i] * gamma[c] * x[i] * rstd[n] / static_cast<double>(channels);
    }
    for (Index c = 0; c < channels; ++c) {
      const Index i = n * channels + c;
      dx[i] += rstd[n] * (dy[i] * gamma[c] - x[i] * rstd[n] * g_xhat_mean);
    }
  }
}

void rms_norm_weight_gradient(double* d_gamma, const double* dy, const double* x, const double* rstd, Index rows,
                              Index channels) {
  for (Index n = 0; n < rows; ++n) {
    for (Index c = 0; c < channels; ++c) d_gamma[c] += dy[n * channels + c] * x[n * channels + c] * rstd[n];
  }
}

void linear_forward_add(double* y, const double* x, const double* w, const double* bias, Index rows, Index inputs,
                        Index outputs) {
  for (Index n = 0; n < rows; ++n) {
    for (Index j = 0; j < outputs; ++j) {
      for (Index i = 0; i < inputs; ++i) y[n * outputs + j] += x[n * inputs + i] * w[j * inputs + i];
      if (bias != nullptr) y[n * outputs + j] += bias[j];
    }
  }
}

void linear_input_gradient_add(double* dx, const double* dy, const double* w, Index rows, Index inputs, Index outputs) {
  for (Index n = 0; n < rows; ++n) {
    for (Index j = 0; j < outputs; ++j) {
      for (Index i = 0; i < inputs; ++i) dx[n * inputs + i] += dy[n * outputs + j] * w[j * inputs + i];
    }
  }
}

void linear_weight_gradient(double* dw, double* d_bias, const double* dy, const double* x, Index rows, Index inputs,
                            Index outputs) {
  for (Index n = 0; n < rows; ++n) {
    for (Index j = 0; j < outputs; ++j) {
      for (Index i = 0; i < inputs; ++i) dw[j * inputs + i] += dy[n * outputs + j] * x[n * inputs + i];
      if (d_bias != nullptr) d_bias[j] += dy[n * outputs + j];
    }
  }
}

void gelu_forward(double* y, const double* x, Index count) {
  const double k = std::sqrt(2 / std::numbers::pi);
  for (Index i = 0; i < count; ++i) {
    y[i] = 0.5 * x[i] * (1 + std::tanh(k * (x[i] + 0.044715 * x[i] * x[i] * x[i])));
  }
}

void gelu_input_gradient(double* dx, const double* dy, const double* x, Index count) {
  const double k = std::sqrt(2 / std::numbers::pi);
  for (Index i = 0; i < count; ++i) {
    const double t = std::tanh(k * (x[i] + 0.044715 * x[i] * x[i] * x[i]));
    const double dt = (1 - t * t) * k * (1 + 3 * 0.044715 * x[i] * x[i]);
    dx[i] = dy[i] * 0.5 * (1 + t + x[i] * dt);
  }
}

void swiglu_forward(double* y, const double* gate_up, Index rows, Index features) {
  for (Index n = 0; n < rows; ++n) {
    for (Index f = 0; f < features; ++f) {
      const double gate = gate_up[2 * n * features + f];
      const double up = gate_up[(2 * n + 1) * features + f];
      y[n * features + f] = gate / (1 + std::exp(-gate)) * up;
    }
  }
}

void swiglu_input_gradient(double* d_gate_up, const double* dy, const double* gate_up, Index rows, Index features) {
  for (Index n = 0; n < rows; ++n) {
    for (Index f = 0; f < features; ++f) {
      const Index at_gate = 2 * n * features + f;
      const Index at_up = at_gate + features;
      const double gate = gate_up[at_gate];
      const double up = gate_up[at_up];
      const double s = 1 / (1 + std::exp(-gate));
      d_gate_up[at_gate] = dy[n * features + f] * up * (s + gate * s * (1 - s));
      d_gate_up[at_up] = dy[n * features + f] * gate * s;
    }
  }
}

void rope(double* x, double theta, double direction, Index batch, Index time, Index heads, Index head_size,
          Index row_stride) {
  for (Index n = 0; n < batch * time; ++n) {
    for (Index h = 0; h < heads; ++h) {
      double* head = x + n * row_stride + h * head_size;
      for (Index i = 0; i < head_size / 2; ++i) {
        const double exponent = -2 * static_cast<double>(i) / static_cast<double>(head_size);
        const double angle = direction * static_cast<double>(n % time) * std::pow(theta, exponent);
        const double a = head[i];
        const double b = head[i + head_size / 2];
        head[i] = a * std::cos(angle) - b * std::sin(angle);
        head[i + head_size / 2] = b * std::cos(angle) + a * std::sin(angle);
      }
    }
  }
}

namespace {

// Where row t of batch b and head h starts.
Index q_at(const AttentionShape& s, Index b, Index h, Index t) {
  return (b * s.time + t) * s.q_stride + h * s.head_size;
}
Index kv_at(const AttentionShape& s, Index b, Index h, Index t) {
  return (b * s.time + t) * s.kv_stride + h / (s.heads / s.kv_heads) * s.head_size;
}
Index o_at(const AttentionShape& s, Index b, Index h, Index t) {
  return ((b * s.time + t) * s.heads + h) * s.head_size;
}
Index p_at(const AttentionShape& s, Index b, Index h, Index t) { return ((b * s.heads + h) * s.time + t) * s.time; }

double dot(const double* a, const double* b, Index count) {
  double sum = 0;
  for (Index i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

// body(b, h, t) for every row of the attention matrix.
template <typename Body>
void for_each_row(const AttentionShape& s, Body body) {
  for (Index b = 0; b < s.batch; ++b) {
    for (Index h = 0; h < s.heads; ++h) {
      for (Index t = 0; t < s.time; ++t) body(b, h, t);
    }
  }
}

}  // namespace

void attention_forward(double* o, double* probabilities, const double* q, const double* k, const double* v,
                       const AttentionShape& s) {
  const double scale = 1 / std::sqrt(static_cast<double>(s.head_size));
  for_each_row(s, [&](Index b, Index h, Index t) {
    double* p = probabilities + p_at(s, b, h, t);
    double sum = 0;
    for (Index u = 0; u < s.time; ++u) {
      const double score = scale * dot(q + q_at(s, b, h, t), k + kv_at(s, b, h, u), s.head_size);
      p[u] = u <= t ? std::exp(score) : 0;
      sum += p[u];
    }
    for (Index u = 0; u < s.time; ++u) p[u] /= sum;
    for (Index d = 0; d < s.head_size; ++d) {
      double& out = o[o_at(s, b, h, t) + d];
      out = 0;
      for (Index u = 0; u <= t; ++u) out += p[u] * v[kv_at(s, b, h, u) + d];
    }
  });
}

void attention_input_gradient(double* dq, double* dk, double* dv, const double* d_o, const double* probabilities,
                              const double* q, const double* k, const double* v, const AttentionShape& s) {
  const double scale = 1 / std::sqrt(static_cast<double>(s.head_size));
  for_each_row(s, [&](Index b, Index h, Index t) {
    std::fill_n(dq + q_at(s, b, h, t), s.head_size, 0.0);
    std::fill_n(dk + kv_at(s, b, h, t), s.head_size, 0.0);
    std::fill_n(dv + kv_at(s, b, h, t), s.head_size, 0.0);
  });
  for_each_row(s, [&](Index b, Index h, Index t) {
    const double* p = probabilities + p_at(s, b, h, t);
    const double* d_out = d_o + o_at(s, b, h, t);
    double mean = 0;  // sum over u of p[u] * dp[u], the softmax's share
    for (Index u = 0; u <= t; ++u) mean += p[u] * dot(d_out, v + kv_at(s, b, h, u), s.head_size);
    for (Index u = 0; u <= t; ++u) {
      const double d_score = scale * p[u] * (dot(d_out, v + kv_at(s, b, h, u), s.head_size) - mean);
      for (Index d = 0; d < s.head_size; ++d) {
        dq[q_at(s, b, h, t) + d] += d_score * k[kv_at(s, b, h, u) + d];
        dk[kv_at(s, b, h, u) + d] += d_score * q[q_at(s, b, h, t) + d];
        dv[kv_at(s, b, h, u) + d] += p[u] * d_out[d];
      }
    }
  });
}

double cross_entropy_loss(const double* logits, Tokens targets, Index rows, Index vocabulary) {
  double total = 0;
  for (Index n = 0; n < rows; ++n) {
    const double* row = logits + n * vocabulary;
    const double maximum = *std::max_element(row, row + vocabulary);
    double sum = 0;
    for (Index i = 0; i < vocabulary; ++i) sum += std::exp(row[i] - maximum);
    total += std::log(sum) + maximum - row[targets[n]];
  }
  return total / static_cast<double>(rows);
}

double cross_entropy_loss_and_gradient(double* logits, Tokens targets, Index rows, Index vocabulary,
                                       double gradient_scale) {
  const double loss = cross_entropy_loss(logits, targets, rows, vocabulary);
  for (Index n = 0; n < rows; ++n) {
    double* row = logits + n * vocabulary;
    const double maximum = *std::max_element(row, row + vocabulary);
    double sum = 0;
    for (Index i = 0; i < vocabulary; ++i) sum += std::exp(row[i] - maximum);
    for (Index i = 0; i < vocabulary; ++i) {
      row[i] = gradient_scale * (std::exp(row[i] - maximum) / sum - (i == targets[n] ? 1 : 0));
    }
  }
  return loss;
}

double mean_squared_error_loss(const double* predictions, const double* targets, Index rows, Index outputs) {
  double total = 0;
  for (Index i = 0; i < rows * outputs; ++i) total += std::pow(predictions[i] - targets[i], 2);
  return total / static_cast<double>(rows * outputs);
}

double mean_squared_error_loss_and_gradient(double* predictions, const double* targets, Index rows, Index outputs,
                                            double gradient_scale) {
  const double loss = mean_squared_error_loss(predictions, targets, rows, outputs);
  for (Index i = 0; i < rows * outputs; ++i) {
    predictions[i] = gradient_scale * 2 * (predictions[i] - targets[i]) / static_cast<double>(outputs);
  }
  return loss;
}

void adamw_step(double* w, double* m, double* v, const double* dw, Index count, const AdamW& options, Index step,
                double gradient_scale) {
  const double beta1 = options.beta1;
  const double beta2 = options.beta2;
  for (Index i = 0; i < count; ++i) {
    const double g = gradient_scale * dw[i];
    w[i] -= static_cast<double>(options.learning_rate) * options.weight_decay * w[i];
    m[i] = beta1 * m[i] + (1 - beta1) * g;
    v[i] = beta2 * v[i] + (1 - beta2) * g * g;
    const double m_hat = m[i] / (1 - std::pow(beta1, static_cast<double>(step)));
    const double v_hat = v[i] / (1 - std::pow(beta2, static_cast<double>(step)));
    w[i] -= options.learning_rate * m_hat / (std::sqrt(v_hat) + options.epsilon);
  }
}

void sgd_step(double* w, double* velocity, const double* dw, Index count, const Sgd& options, double gradient_scale) {
  for (Index i = 0; i < count; ++i) {
    velocity[i] = options.momentum * velocity[i] + gradient_scale * dw[i] + options.weight_decay * w[i];
    w[i] -= options.learning_rate * velocity[i];
  }
}

}  // namespace stagecraft::kernels::reference
