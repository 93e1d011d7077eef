#include "kernels/harness/cuda_cases.hpp"

#include <algorithm>
#include <array>

#include "kernels/cuda/cross_entropy.hpp"
#include "kernels/cuda/embedding.hpp"
#include "kernels/cuda/mean_squared_error.hpp"
#include "kernels/reference.hpp"

namespace stagecraft::kernels {
namespace {

template <class T>
void add_embedding(CudaCases& cases, Index batch, Index time, Index channels, Index vocabulary) {
  const Index n = batch * time * channels;
  const Tensor tokens{"tokens", Role::indices, batch * time, 0.0, static_cast<double>(vocabulary)};
  const auto workspace = static_cast<Index>(cuda::embedding_weight_gradient_workspace_bytes(batch, time, channels) / 4);
  // As if no token occurred twice.
  const auto activations = static_cast<double>(n) * sizeof(T);
  const auto touched = static_cast<double>(n) * sizeof(float);
  const auto positions = static_cast<double>(time * channels);
  for (const bool learned : {true, false}) {
    const std::string shape = fmt::format("{} B={} T={} C={} V={}{}", type_name<T>(), batch, time, channels, vocabulary,
                                          learned ? " positions" : "");
    cases.push_back({.op = "embedding",
                     .name = "embedding_forward " + shape,
                     .tensors = {tensor_of<T>("y", Role::output, n), tokens,
                                 tensor_of<T>("token_table", Role::input, vocabulary * channels),
                                 tensor_of<T>("position_table", Role::input, time * channels)},
                     .candidate =
                         [=](Dev d, cudaStream_t s) {
                           cuda::embedding_forward<T>(d.at<T>(0), d.indices(1), d.at<T>(2),
                                                      learned ? d.at<T>(3) : nullptr, batch, time, channels, s);
                         },
                     .reference =
                         [=](D d) {
                           reference::embedding_forward(d[0], d.indices(1), d[2], learned ? d[3] : nullptr, batch, time,
                                                        channels);
                         },
                     .bytes = 2.0 * activations + (learned ? positions * sizeof(T) : 0.0)});
    cases.push_back({.op = "embedding",
                     .name = "embedding_weight_gradient " + shape,
                     .tensors = {{"d_token_table", Role::in_out, vocabulary * channels},
                                 {"d_position_table", Role::in_out, time * channels},
                                 tokens,
                                 tensor_of<T>("dy", Role::input, n),
                                 {"workspace", Role::scratch, workspace}},
                     .candidate =
                         [=](Dev d, cudaStream_t s) {
                           cuda::embedding_weight_gradient<T>(d.at<float>(0), learned ? d.at<float>(1) : nullptr,
                                                              d.indices(2), d.at<T>(3), batch, time, channels,
                                                              d.at<void>(4), s);
                         },
                     .reference =
                         [=](D d) {
                           reference::embedding_weight_gradient(d[0], learned ? d[1] : nullptr, d.indices(2), d[3],
                                                                batch, time, channels);
                         },
                     .bytes = activations + 2.0 * touched + (learned ? 2.0 * positions * sizeof(float) : 0.0)});
  }
}

template <class T>
void add_cross_entropy(CudaCases& cases, Index rows, Index vocabulary, Index stride, double range) {
  const std::string shape =
      fmt::format("{} N={} V={} stride={} |x|<{}", type_name<T>(), rows, vocabulary, stride, range);
  const Tensor losses{"losses", Role::output, rows};
  const Tensor targets{"targets", Role::indices, rows, 0.0, static_cast<double>(vocabulary)};
  const double factor = 0.125;
  // Row by row, since rows are padded.
  const auto row_losses = [=](D d, const std::int32_t* at) {
    for (Index n = 0; n < rows; ++n) d[0][n] = reference::cross_entropy_loss(d[1] + n * stride, at + n, 1, vocabulary);
  };
  cases.push_back({.op = "cross_entropy",
                   .name = "cross_entropy_loss " + shape,
                   .tensors = {losses, tensor_of<T>("logits", Role::input, rows * stride, -range, range), targets},
                   .candidate =
                       [=](Dev d, cudaStream_t s) {
                         cuda::cross_entropy_loss<T>(d.at<float>(0), d.at<T>(1), d.indices(2), rows, vocabulary, stride,
                                                     s);
                       },
                   .reference = [=](D d) { row_losses(d, d.indices(2)); }});
  cases.push_back({.op = "cross_entropy",
                   .name = "cross_entropy_loss_and_gradient " + shape,
                   .tensors = {losses, tensor_of<T>("logits", Role::in_out, rows * stride, -range, range), targets},
                   .candidate =
                       [=](Dev d, cudaStream_t s) {
                         cuda::cross_entropy_loss_and_gradient<T>(d.at<float>(0), d.at<T>(1), d.indices(2), rows,
                                                                  vocabulary, stride, static_cast<float>(factor), s);
                       },
                   .reference =
                       [=](D d) {
                         for (Index n = 0; n < rows; ++n) {
                           double* const row = d[1] + n * stride;
                           d[0][n] =
                               reference::cross_entropy_loss_and_gradient(row, d.indices(2) + n, 1, vocabulary, factor);
                           zero(row + vocabulary, stride - vocabulary);
                         }
                       }});
}

void add_mean_loss(CudaCases& cases, Index rows) {
  cases.push_back(
      {.op = "cross_entropy",
       .name = fmt::format("add_mean_loss N={}", rows),
       .tensors = {{.name = "sum_of_means", .role = Role::in_out, .count = 1, .storage = Storage::fp64},
                   {"losses", Role::input, rows, 0.0, 11.0}},
       .candidate = [=](Dev d, cudaStream_t s) { cuda::add_mean_loss(d.at<double>(0), d.at<float>(1), rows, s); },
       .reference =
           [=](D d) {
             for (Index n = 0; n < rows; ++n) *d[0] += d[1][n] / static_cast<double>(rows);
           }});
}

template <class T>
void add_mean_squared_error(CudaCases& cases, Index rows, Index outputs) {
  const std::string shape = fmt::format("{} N={} outputs={}", type_name<T>(), rows, outputs);
  const Index n = rows * outputs;
  const double factor = 0.125;
  for (const bool gradient : {false, true}) {
    cases.push_back(
        {.op = "mean_squared_error",
         .name = (gradient ? "mean_squared_error_loss_and_gradient " : "mean_squared_error_loss ") + shape,
         .tensors = {{"losses", Role::output, rows},
                     tensor_of<T>("predictions", gradient ? Role::in_out : Role::input, n),
                     {"targets", Role::input, n}},
         .candidate =
             [=](Dev d, cudaStream_t s) {
               if (gradient) {
                 cuda::mean_squared_error_loss_and_gradient<T>(d.at<float>(0), d.at<T>(1), d.at<float>(2), rows,
                                                               outputs, static_cast<float>(factor), s);
               } else {
                 cuda::mean_squared_error_loss<T>(d.at<float>(0), d.at<T>(1), d.at<float>(2), rows, outputs, s);
               }
             },
         .reference =
             [=](D d) {
               for (Index r = 0; r < rows; ++r) {
                 double* const row = d[1] + r * outputs;
                 d[0][r] = reference::mean_squared_error_loss(row, d[2] + r * outputs, 1, outputs);
                 if (gradient) {
                   reference::mean_squared_error_loss_and_gradient(row, d[2] + r * outputs, 1, outputs, factor);
                 }
               }
             }});
  }
}

template <class T>
void add_small_cases(CudaCases& cases, CudaLibraries& libraries) {
  add_embedding<T>(cases, 1, 1, 1, 1);
  add_embedding<T>(cases, 3, 5, 37, 7);
  add_embedding<T>(cases, 2, 100, 64, 3);  // runs over several chunks
  add_embedding<T>(cases, 1, 64, 1600, 2000);
  add_shard_embedding<T>(cases, 3, 5, 37, 7, 2);
  add_shard_embedding<T>(cases, 2, 100, 64, 3, 3);
  for (const Index channels : {1, 7, 64, 259, 768, 1600, 4096, 6144}) {
    add_layer_norm<T>(cases, 5, channels);
    add_rms_norm<T>(cases, 5, channels);
  }
  add_layer_norm<T>(cases, 131, 72);  // several chunks of rows, the last one short
  add_rms_norm<T>(cases, 131, 72);
  add_bias<T>(cases, 1, 1);
  add_bias<T>(cases, 131, 37);
  add_bias<T>(cases, 131, 1600);
  for (const double range : {1.0, 10.0, 1000.0}) {
    add_gelu<T>(cases, 17, 59, range);
    add_gelu<T>(cases, 3, 336, range);
    add_swiglu<T>(cases, 3, 331, range);
    add_swiglu<T>(cases, 3, 336, range);
  }
  add_rope<T>(cases, 1, 1, 1, 2, 2);
  add_rope<T>(cases, 2, 9, 3, 6, 18);
  add_rope<T>(cases, 2, 40, 3, 64, 4 * 64 + 3);
  add_rope<T>(cases, 2, 40, 40, 128, Index{48} * 128);
  for (const double range : {1.0, 100.0}) {
    add_cross_entropy<T>(cases, 1, 1, 1, range);
    add_cross_entropy<T>(cases, 7, 259, 259, range);
    add_cross_entropy<T>(cases, 7, 259, 264, range);
    add_cross_entropy<T>(cases, 3, 50257, 50304, range);
    add_shard_cross_entropy<T>(cases, 7, 259, 2, 131, range);
    add_shard_cross_entropy<T>(cases, 3, 50257, 4, 12672, range);
  }
  add_mean_squared_error<T>(cases, 1, 1);
  add_mean_squared_error<T>(cases, 300, 13);
  for (const bool bias : {false, true}) {
    for (const bool tuned : {false, true}) {
      add_linear<T>(cases, libraries, 1, 1, 1, {.bias = bias, .tuned = tuned});
      add_linear<T>(cases, libraries, 5, 37, 19, {.bias = bias, .tuned = tuned});
      add_linear<T>(cases, libraries, 64, 128, 96, {.bias = bias, .tuned = tuned});
      add_linear<T>(cases, libraries, 72, 1600, 400, {.bias = bias, .tuned = tuned});
    }
  }
  add_attention<T>(cases, packed_attention(1, 1, 1, 1, 1), 1.0);
  add_attention<T>(cases, packed_attention(2, 7, 2, 2, 5), 1.0);
  add_attention<T>(cases, packed_attention(2, 33, 4, 2, 16), 2.0);
  add_attention<T>(cases, packed_attention(1, 130, 3, 3, 64), 1.0);
  add_attention<T>(cases, packed_attention(1, 70, 8, 2, 128), 1.0);
  add_attention<T>(cases, packed_attention(1, 20, 1, 1, 200), 1.0);
}

// What surrounds the matrix products in `rows` tokens of GPT-2 XL.
void add_gpt2_xl(CudaCases& cases, Index batch) {
  constexpr Index time = 1024;
  constexpr Index channels = 1600;
  const Index rows = batch * time;
  add_embedding<Bf16>(cases, batch, time, channels, 50304);
  add_layer_norm<Bf16>(cases, rows, channels);
  add_bias<Bf16>(cases, rows, channels);
  add_bias<Bf16>(cases, rows, 4 * channels);
  add_gelu<Bf16>(cases, rows, 4 * channels, 3.0);
  add_cross_entropy<Bf16>(cases, rows, 50257, 50304, 3.0);
}

}  // namespace

std::vector<CudaCase> cuda_test_cases(CudaLibraries& libraries) {
  CudaCases cases;
  add_small_cases<float>(cases, libraries);
  add_small_cases<Bf16>(cases, libraries);
  for (const bool tuned : {false, true}) {
    add_linear<float>(cases, libraries, 72, 256, 200,
                      {.bias = false, .fp32_inputs = cuda::MatrixType::tf32, .tuned = tuned});
  }
  add_linear_gelu(cases, libraries, 8, 64, 64);
  add_linear_gelu(cases, libraries, 72, 1600, 400);
  add_gemm_cache(cases, libraries);
  add_cudnn_attention(cases, libraries, packed_attention(2, 64, 3, 3, 64), 1.0);
  add_cudnn_attention(cases, libraries, packed_attention(1, 200, 2, 2, 64), 2.0);
  add_cudnn_attention(cases, libraries, packed_attention(2, 128, 8, 2, 128), 1.0);
  add_mean_loss(cases, 1);
  add_mean_loss(cases, 4097);
  for (const Index step : {1, 10, 100000}) add_adamw(cases, 20001, step, true);
  add_adamw(cases, 7, 1, false);
  for (const bool momentum : {false, true}) add_sgd(cases, 20001, momentum);
  add_squared_norm(cases, 1);
  add_squared_norm(cases, 1000003);
  add_clip_scale(cases, 0.25);
  add_clip_scale(cases, 16.0);
  add_elementwise(cases, 1);
  add_elementwise(cases, 4099);
  add_memset_nodes(cases, 4099);
  add_memset_nodes(cases, 16);
  add_take_next(cases, 3, 1);
  add_take_next(cases, 2, 20001);
  return cases;
}

std::vector<CudaCase> cuda_perf_cases(CudaLibraries& libraries) {
  CudaCases cases;
  add_gpt2_xl(cases, 4);
  add_gpt2_xl(cases, 8);
  for (const Index rows : {4096, 8192}) {
    for (const auto& [inputs, outputs] :
         {std::array<Index, 2>{1600, 4800}, {1600, 1600}, {1600, 6400}, {6400, 1600}, {1600, 50304}}) {
      add_linear<Bf16>(cases, libraries, rows, inputs, outputs, {.bias = false, .tuned = true});
      if (outputs < 50000) add_linear<Bf16>(cases, libraries, rows, inputs, outputs, {.bias = true, .tuned = true});
    }
  }
  for (const Index rows : {4096, 8192}) add_linear_gelu(cases, libraries, rows, 1600, 6400);
  add_linear<Bf16>(cases, libraries, 4096, 1600, 6400, {.bias = false, .tuned = false});
  add_cudnn_attention(cases, libraries, packed_attention(4, 1024, 25, 25, 64), 1.0);
  add_cudnn_attention(cases, libraries, packed_attention(8, 1024, 25, 25, 64), 1.0);
  add_cudnn_attention(cases, libraries, packed_attention(2, 2048, 32, 8, 128), 1.0);
  add_attention<Bf16>(cases, packed_attention(4, 1024, 25, 25, 64), 1.0);
  // A Llama layer of 4096 channels, 14336 features, 32 heads and 8 key heads of 128.
  add_rms_norm<Bf16>(cases, 8192, 4096);
  add_swiglu<Bf16>(cases, 8192, 14336, 3.0);
  add_rope<Bf16>(cases, 4, 2048, 40, 128, Index{48} * 128);
  add_adamw(cases, Index{1} << 28, 10, false);
  add_squared_norm(cases, Index{1} << 28);
  add_elementwise(cases, Index{1} << 26);
  return cases;
}

}  // namespace stagecraft::kernels
