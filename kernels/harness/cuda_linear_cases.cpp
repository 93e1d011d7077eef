#include <algorithm>
#include <cmath>

#include "kernels/cuda/error.hpp"
#include "kernels/harness/cuda_cases.hpp"
#include "kernels/reference.hpp"

namespace stagecraft::kernels {
namespace {

// Products of Bf16 are exact in float, and tensor cores add them 16 at a time, each sum truncated. TF32 inputs have 10
// bits of fraction: each product is off by up to twice 2^-11, at random, and the sum by as much of its size as six
// standard deviations of that allow. Some of the library's algorithms round the product to Bf16 before they add C.
double product_tolerance(cuda::MatrixType inputs, Index depth, Storage output, bool accumulate) {
  double tolerance = 1e-5 + static_cast<double>(depth) / 16.0 * 0x1p-23;
  if (inputs == cuda::MatrixType::tf32) tolerance += 6.0 * std::sqrt(2.0 / 3.0) * 0x1p-11;
  if (accumulate && output == Storage::bf16) tolerance += unit_roundoff(Storage::bf16);
  return tolerance;
}

}  // namespace

template <class T>
void add_linear(CudaCases& cases, CudaLibraries& libraries, Index rows, Index inputs, Index outputs,
                LinearOptions options) {
  const bool biased = options.bias;
  const cuda::MatrixType fp32 = options.fp32_inputs;
  const cuda::MatrixType type = cuda::matrix_type<T>(fp32);
  const std::string shape = fmt::format("{} N={} {}->{}{}", type == cuda::MatrixType::tf32 ? "tf32" : type_name<T>(),
                                        rows, inputs, outputs, options.tuned ? "" : " untuned");
  const double flops = 2.0 * static_cast<double>(rows) * static_cast<double>(inputs) * static_cast<double>(outputs);
  const Tensor x = tensor_of<T>("x", Role::input, rows * inputs);
  const Tensor w = tensor_of<T>("w", Role::input, outputs * inputs);
  const Tensor bias = tensor_of<T>("bias", Role::input, outputs);
  const Tensor dy = tensor_of<T>("dy", Role::input, rows * outputs);
  CudaLibraries* const l = &libraries;
  const auto context = [=](const cuda::GemmShape& product, cudaStream_t s) {
    cuda::GemmContext result = l->context(s);
    result.fp32_inputs = fp32;
    if (options.tuned) {
      l->tune(product);  // the first call only
    } else {
      result.gemm = &l->untuned_gemm;
    }
    return result;
  };
  const auto add = [&](const std::string& name, Index depth, std::vector<Tensor> tensors, auto candidate,
                       auto reference) {
    const Tensor& output = tensors.front();
    const double tolerance = product_tolerance(type, depth, output.storage, output.role == Role::in_out);
    cases.push_back({.op = "linear",
                     .name = name + " " + shape,
                     .tensors = std::move(tensors),
                     .candidate = candidate,
                     .reference = reference,
                     .flops = flops,
                     .tolerance = tolerance});
  };
  const Index y_count = rows * outputs;
  const Index x_count = rows * inputs;
  const Index w_count = outputs * inputs;
  for (const bool accumulate : {false, true}) {
    const Accumulate how = accumulate_if(accumulate);
    const Role role = accumulate ? Role::in_out : Role::output;
    const std::string suffix = std::string(accumulate ? " accumulate" : "") + (biased ? " bias" : "");
    const auto forward = cuda::linear_forward_shape<T>(rows, inputs, outputs, biased, how, fp32);
    add(
        "linear_forward" + suffix, inputs, {tensor_of<T>("y", role, y_count), x, w, bias},
        [=](Dev d, cudaStream_t s) {
          cuda::linear_forward<T>(d.at<T>(0), d.at<T>(1), d.at<T>(2), biased ? d.at<T>(3) : nullptr, rows, inputs,
                                  outputs, how, context(forward, s));
        },
        [=](D d) {
          if (!accumulate) zero(d[0], y_count);
          reference::linear_forward_add(d[0], d[1], d[2], biased ? d[3] : nullptr, rows, inputs, outputs);
        });
    if (biased) continue;
    const auto input_gradient = cuda::linear_input_gradient_shape<T>(rows, inputs, outputs, how, fp32);
    const auto weight_gradient = cuda::linear_weight_gradient_shape<T>(rows, inputs, outputs, how, fp32);
    add(
        "linear_input_gradient" + suffix, outputs, {tensor_of<T>("dx", role, x_count), dy, w},
        [=](Dev d, cudaStream_t s) {
          cuda::linear_input_gradient<T>(d.at<T>(0), d.at<T>(1), d.at<T>(2), rows, inputs, outputs, how,
                                         context(input_gradient, s));
        },
        [=](D d) {
          if (!accumulate) zero(d[0], x_count);
          reference::linear_input_gradient_add(d[0], d[1], d[2], rows, inputs, outputs);
        });
    add(
        "linear_weight_gradient" + suffix, rows, {{"dw", role, w_count}, dy, x},
        [=](Dev d, cudaStream_t s) {
          cuda::linear_weight_gradient<T>(d.at<float>(0), d.at<T>(1), d.at<T>(2), rows, inputs, outputs, how,
                                          context(weight_gradient, s));
        },
        [=](D d) {
          if (!accumulate) zero(d[0], w_count);
          reference::linear_weight_gradient(d[0], nullptr, d[1], d[2], rows, inputs, outputs);
        });
  }
}

// GELU within the products, against the separate operations.
void add_linear_gelu(CudaCases& cases, CudaLibraries& libraries, Index rows, Index inputs, Index outputs) {
  CudaLibraries* const l = &libraries;
  const Index z_count = rows * outputs;
  const std::string shape = fmt::format("bf16 N={} {}->{}", rows, inputs, outputs);
  const double flops = 2.0 * static_cast<double>(z_count) * static_cast<double>(inputs);
  const auto forward = cuda::linear_forward_gelu_shape(rows, inputs, outputs, true);
  cases.push_back(
      {.op = "linear",
       .name = "linear_forward_gelu " + shape,
       .tensors = {tensor_of<Bf16>("y", Role::output, z_count), tensor_of<Bf16>("z", Role::output, z_count),
                   tensor_of<Bf16>("x", Role::input, rows * inputs),
                   tensor_of<Bf16>("w", Role::input, outputs * inputs), tensor_of<Bf16>("bias", Role::input, outputs)},
       .candidate =
           [=](Dev d, cudaStream_t s) {
             l->tune(forward);
             cuda::linear_forward_gelu(d.at<Bf16>(0), d.at<Bf16>(1), d.at<Bf16>(2), d.at<Bf16>(3), d.at<Bf16>(4), rows,
                                       inputs, outputs, l->context(s));
           },
       .reference =
           [=](D d) {
             zero(d[1], z_count);
             reference::linear_forward_add(d[1], d[2], d[3], d[4], rows, inputs, outputs);
             reference::gelu_forward(d[0], d[1], z_count);
           },
       .flops = flops,
       .tolerance = product_tolerance(cuda::MatrixType::bf16, inputs, Storage::bf16, false)});
  const auto gradient = cuda::linear_input_gradient_gelu_shape(rows, outputs, inputs);
  cases.push_back(
      {.op = "linear",
       .name = "linear_input_gradient_gelu " + shape,
       .tensors = {tensor_of<Bf16>("dz", Role::output, z_count), tensor_of<Bf16>("dy", Role::input, rows * inputs),
                   tensor_of<Bf16>("w", Role::input, outputs * inputs), tensor_of<Bf16>("z", Role::input, z_count)},
       .candidate =
           [=](Dev d, cudaStream_t s) {
             l->tune(gradient);
             cuda::linear_input_gradient_gelu(d.at<Bf16>(0), d.at<Bf16>(1), d.at<Bf16>(2), d.at<Bf16>(3), rows, outputs,
                                              inputs, l->context(s));
           },
       .reference =
           [=](D d) {
             std::vector<double> dx(static_cast<std::size_t>(z_count));
             reference::linear_input_gradient_add(dx.data(), d[1], d[2], rows, outputs, inputs);
             reference::gelu_input_gradient(d[0], dx.data(), d[3], z_count);
           },
       .flops = flops,
       // The library rounds the product before it multiplies.
       .tolerance = product_tolerance(cuda::MatrixType::bf16, inputs, Storage::bf16, true)});
}

// Another object takes the choice from the file. Were it to time again, it would fail for want of memory to do so in.
void add_gemm_cache(CudaCases& cases, CudaLibraries& libraries) {
  constexpr Index n = 64;
  CudaLibraries* const l = &libraries;
  cases.push_back({.op = "linear",
                   .name = "linear_forward with the algorithm of an earlier run",
                   .tensors = {tensor_of<Bf16>("y", Role::output, n * n), tensor_of<Bf16>("x", Role::input, n * n),
                               tensor_of<Bf16>("w", Role::input, n * n)},
                   .candidate =
                       [=](Dev d, cudaStream_t s) {
                         const auto shape = cuda::linear_forward_shape<Bf16>(n, n, n, false, Accumulate::no);
                         l->tune(shape);
                         cuda::Gemm later(l->gemm_cache);
                         later.tune(shape, {}, nullptr, s);
                         later.run(shape, d.at<void>(0), d.at<void>(1), d.at<void>(2), nullptr,
                                   l->gemm_workspace.data(), s);
                         STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(s));
                       },
                   .reference =
                       [=](D d) {
                         zero(d[0], n * n);
                         reference::linear_forward_add(d[0], d[1], d[2], nullptr, n, n, n);
                       }});
}

template void add_linear<float>(CudaCases&, CudaLibraries&, Index, Index, Index, LinearOptions);
template void add_linear<Bf16>(CudaCases&, CudaLibraries&, Index, Index, Index, LinearOptions);

}  // namespace stagecraft::kernels
