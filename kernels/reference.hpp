// What every operation must compute: the formulas, in double, one scalar at a time.
//
// Slow and obviously right. Implementations are tested against these, and finite differences are taken through them.
// Arguments have the meaning, order and shapes of the functions of the same name under kernels/cpu; dx of a gradient is
// overwritten unless the name ends in _add, and gradients of weights accumulate.
#pragma once

#include <cstdint>

#include "kernels/types.hpp"

namespace stagecraft::kernels::reference {

using Index = std::int64_t;
using Tokens = const std::int32_t*;

void embedding_forward(double* y, Tokens tokens, const double* token_table, const double* position_table, Index batch,
                       Index time, Index channels);
void embedding_weight_gradient(double* d_token_table, double* d_position_table, Tokens tokens, const double* dy,
                               Index batch, Index time, Index channels);

void layer_norm_forward(double* y, double* mean, double* rstd, const double* x, const double* gamma, const double* beta,
                        Index rows, Index channels, double epsilon);
void layer_norm_input_gradient_add(double* dx, const double* dy, const double* x, const double* gamma,
                                   const double* mean, const double* rstd, Index rows, Index channels);
void layer_norm_weight_gradient(double* d_gamma, double* d_beta, const double* dy, const double* x, const double* mean,
                                const double* rstd, Index rows, Index channels);

void rms_norm_forward(double* y, double* rstd, const double* x, const double* gamma, Index rows, Index channels,
                      double epsilon);
void rms_norm_input_gradient_add(double* dx, const double* dy, const double* x, const double* gamma, const double* rstd,
                                 Index rows, Index channels);
void rms_norm_weight_gradient(double* d_gamma, const double* dy, const double* x, const double* rstd, Index rows,
                              Index channels);

void linear_forward_add(double* y, const double* x, const double* w, const double* bias, Index rows, Index inputs,
                        Index outputs);
void linear_input_gradient_add(double* dx, const double* dy, const double* w, Index rows, Index inputs, Index outputs);
void linear_weight_gradient(double* dw, double* d_bias, const double* dy, const double* x, Index rows, Index inputs,
                            Index outputs);

void gelu_forward(double* y, const double* x, Index count);
void gelu_input_gradient(double* dx, const double* dy, const double* x, Index count);

void swiglu_forward(double* y, const double* gate_up, Index rows, Index features);
void swiglu_input_gradient(double* d_gate_up, const double* dy, const double* gate_up, Index rows, Index features);

// Takes theta where the fast versions take a table; direction is 1 for the forward and -1 for the gradient.
void rope(double* x, double theta, double direction, Index batch, Index time, Index heads, Index head_size,
          Index row_stride);

void attention_forward(double* o, double* probabilities, const double* q, const double* k, const double* v,
                       const AttentionShape& shape);
void attention_input_gradient(double* dq, double* dk, double* dv, const double* d_o, const double* probabilities,
                              const double* q, const double* k, const double* v, const AttentionShape& shape);

double cross_entropy_loss(const double* logits, Tokens targets, Index rows, Index vocabulary);
double cross_entropy_loss_and_gradient(double* logits, Tokens targets, Index rows, Index vocabulary,
                                       double gradient_scale);

double mean_squared_error_loss(const double* predictions, const double* targets, Index rows, Index outputs);
double mean_squared_error_loss_and_gradient(double* predictions, const double* targets, Index rows, Index outputs,
                                            double gradient_scale);

void adamw_step(double* w, double* m, double* v, const double* dw, Index count, const AdamW& options, Index step,
                double gradient_scale);
void sgd_step(double* w, double* velocity, const double* dw, Index count, const Sgd& options, double gradient_scale);

}  // namespace stagecraft::kernels::reference
