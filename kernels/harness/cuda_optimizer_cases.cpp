#include <algorithm>
#include <cmath>

#include "kernels/cuda/error.hpp"
#include "kernels/cuda/optimizer.hpp"
#include "kernels/harness/cuda_cases.hpp"
#include "kernels/reference.hpp"

namespace stagecraft::kernels {
namespace {

// A list of descriptors in device memory, as the runtime would upload it once.
template <class Value>
cuda::Buffer uploaded(const std::vector<Value>& values, cudaStream_t stream) {
  cuda::Buffer buffer(values.size() * sizeof(Value));
  STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(buffer.data(), values.data(), buffer.bytes(), cudaMemcpyHostToDevice, stream));
  STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(stream));
  return buffer;
}

// One span, cut into tensors at these places; every other tensor has no weight decay. 16-byte alignment of the pieces
// makes the cuts multiples of 8.
std::vector<Index> cuts(Index count) {
  std::vector<Index> places{0};
  for (const Index place : {Index{8}, count / 3 / 8 * 8, count / 2 / 8 * 8, count / 2 / 8 * 8}) {
    if (place >= places.back() && place < count) places.push_back(place);
  }
  places.push_back(count);
  return places;
}

constexpr float decay = 0.1F;
float decay_of(std::size_t piece) { return piece % 2 == 0 ? decay : 0.0F; }

}  // namespace

void add_adamw(CudaCases& cases, Index count, Index step, bool in_pieces) {
  const AdamW options{.learning_rate = 1e-2F};
  const double scale = 0.5;
  const std::vector<Index> places = in_pieces ? cuts(count) : std::vector<Index>{0, count};
  // Lives as long as the case: the measured call is the launch alone.
  struct Lists {
    std::byte* at = nullptr;  // the tensors of the call for which it was made
    cuda::Buffer tensors, step, scale;
    Index pieces = 0, blocks = 0;
  };
  const auto lists = std::make_shared<Lists>();
  cases.push_back({.op = "optimizer",
                   .name = fmt::format("adamw_step n={} step={}{}", count, step, in_pieces ? " in pieces" : ""),
                   .tensors = {{"master", Role::in_out, count},
                               {"m", Role::in_out, count},
                               {"v", Role::in_out, count, 0.0, 1.0},
                               {"gradient", Role::input, count},
                               tensor_of<Bf16>("weight", Role::output, count)},
                   .candidate =
                       [=](Dev d, cudaStream_t s) {
                         if (lists->at != d.at<std::byte>(0)) {
                           std::vector<cuda::AdamWTensor> tensors;
                           for (std::size_t i = 0; i + 1 < places.size(); ++i) {
                             const Index at = places[i];
                             tensors.push_back({d.at<float>(0) + at, d.at<float>(1) + at, d.at<float>(2) + at,
                                                d.at<float>(3) + at, d.at<Bf16>(4) + at, places[i + 1] - at,
                                                decay_of(i)});
                           }
                           lists->blocks = cuda::assign_blocks(tensors);
                           lists->pieces = static_cast<Index>(tensors.size());
                           lists->tensors = uploaded(tensors, s);
                           lists->step = uploaded(std::vector{cuda::adamw_step_values(options, step)}, s);
                           lists->scale = uploaded(std::vector{static_cast<float>(scale)}, s);
                           lists->at = d.at<std::byte>(0);
                         }
                         cuda::adamw_step(lists->tensors.as<cuda::AdamWTensor>(), lists->pieces, lists->blocks,
                                          lists->step.as<cuda::AdamWStep>(), lists->scale.as<float>(), options, s);
                       },
                   .reference =
                       [=](D d) {
                         for (std::size_t i = 0; i + 1 < places.size(); ++i) {
                           AdamW piece = options;
                           piece.weight_decay = decay_of(i);
                           const Index at = places[i];
                           reference::adamw_step(d[0] + at, d[1] + at, d[2] + at, d[3] + at, places[i + 1] - at, piece,
                                                 step, scale);
                         }
                         for (Index i = 0; i < count; ++i) d[4][i] = d[0][i];
                       }});
}

void add_sgd(CudaCases& cases, Index count, bool momentum) {
  const Sgd options{.learning_rate = 1e-2F, .momentum = momentum ? 0.9F : 0.0F, .weight_decay = decay};
  cases.push_back(
      {.op = "optimizer",
       .name = fmt::format("sgd_step n={}{}", count, momentum ? " momentum" : ""),
       .tensors = {{"master", Role::in_out, count},
                   {"velocity", momentum ? Role::in_out : Role::input, count},
                   {"gradient", Role::input, count},
                   tensor_of<Bf16>("weight", Role::output, count)},
       .candidate =
           [=](Dev d, cudaStream_t s) {
             std::vector<cuda::SgdTensor> tensors{{d.at<float>(0), momentum ? d.at<float>(1) : nullptr, d.at<float>(2),
                                                   d.at<Bf16>(3), count, options.weight_decay}};
             const Index blocks = cuda::assign_blocks(tensors);
             const cuda::Buffer list = uploaded(tensors, s);
             const cuda::Buffer rate = uploaded(std::vector{options.learning_rate}, s);
             cuda::sgd_step(list.as<cuda::SgdTensor>(), 1, blocks, rate.as<float>(), nullptr, options.momentum, s);
             STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(s));
           },
       .reference =
           [=](D d) {
             std::vector<double> none(static_cast<std::size_t>(count));
             reference::sgd_step(d[0], momentum ? d[1] : none.data(), d[2], count, options, 1.0);
             for (Index i = 0; i < count; ++i) d[3][i] = d[0][i];
           }});
}

void add_squared_norm(CudaCases& cases, Index count) {
  const Tensor norm{.name = "norm", .role = Role::output, .count = 1, .storage = Storage::fp64};
  const Tensor workspace{.name = "workspace",
                         .role = Role::scratch,
                         .count = cuda::squared_norm_workspace_doubles,
                         .storage = Storage::fp64};
  cases.push_back({.op = "optimizer",
                   .name = fmt::format("squared_norm n={}", count),
                   .tensors = {norm, {"x", Role::input, count}, workspace},
                   .candidate =
                       [=](Dev d, cudaStream_t s) {
                         cuda::squared_norm(d.at<double>(0), d.at<float>(1), count, d.at<double>(2), Accumulate::no, s);
                       },
                   .reference =
                       [=](D d) {
                         *d[0] = 0.0;
                         for (Index i = 0; i < count; ++i) *d[0] += d[1][i] * d[1][i];
                       }});
}

void add_clip_scale(CudaCases& cases, double squared_norm) {
  cases.push_back(
      {.op = "optimizer",
       .name = fmt::format("clip_scale squared_norm={}", squared_norm),
       .tensors = {{"scale", Role::output, 1},
                   {.name = "norm",
                    .role = Role::input,
                    .count = 1,
                    .low = squared_norm,
                    .high = squared_norm,
                    .storage = Storage::fp64}},
       .candidate = [=](Dev d, cudaStream_t s) { cuda::clip_scale(d.at<float>(0), d.at<double>(1), 1.0F, s); },
       .reference = [=](D d) { *d[0] = std::min(1.0, 1.0 / std::sqrt(*d[1])); }});
}

}  // namespace stagecraft::kernels
