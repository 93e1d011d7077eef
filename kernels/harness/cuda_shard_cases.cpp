// Operations of which shards do a part each: all of their parts, one after the other, against the whole.
#include <algorithm>
#include <vector>

#include "kernels/cuda/cross_entropy.hpp"
#include "kernels/cuda/embedding.hpp"
#include "kernels/harness/cuda_cases.hpp"
#include "kernels/reference.hpp"

namespace stagecraft::kernels {
namespace {

// Parts of a vocabulary, the last one smaller.
std::vector<TokenRange> parts_of(Index vocabulary, Index shards) {
  const Index share = (vocabulary + shards - 1) / shards;
  std::vector<TokenRange> parts;
  for (Index first = 0; first < vocabulary; first += share)
    parts.push_back({first, std::min(share, vocabulary - first)});
  return parts;
}

}  // namespace

template <class T>
void add_shard_cross_entropy(CudaCases& cases, Index rows, Index vocabulary, Index shards, Index stride, double range) {
  const auto parts = parts_of(vocabulary, shards);
  const Index statistics = cuda::cross_entropy_statistics * rows;
  constexpr double factor = 0.125;
  cases.push_back({
      .op = "cross_entropy",
      .name = fmt::format("cross_entropy_shard {} N={} V={} shards={} stride={} |x|<{}", type_name<T>(), rows,
                          vocabulary, shards, stride, range),
      .tensors = {{"losses", Role::output, rows},
                  tensor_of<T>("logits", Role::in_out, shards * rows * stride, -range, range),
                  {"targets", Role::indices, rows, 0.0, static_cast<double>(vocabulary)},
                  {"statistics", Role::scratch, shards * statistics}},
      .candidate =
          [=](Dev d, cudaStream_t s) {
            const auto logits = [&](std::size_t i) { return d.at<T>(1) + static_cast<Index>(i) * rows * stride; };
            for (std::size_t i = 0; i < parts.size(); ++i) {
              cuda::cross_entropy_shard_statistics<T>(d.at<float>(3) + static_cast<Index>(i) * statistics, logits(i),
                                                      d.indices(2), rows, parts[i].count, stride, parts[i].first, s);
            }
            for (std::size_t i = 0; i < parts.size(); ++i) {
              cuda::cross_entropy_shard_loss_and_gradient<T>(d.at<float>(0), logits(i), d.at<float>(3), d.indices(2),
                                                             shards, rows, parts[i].count, stride, parts[i].first,
                                                             static_cast<float>(factor), s);
            }
          },
      .reference =
          [=](D d) {
            for (Index n = 0; n < rows; ++n) {
              std::vector<double> row;
              for (Index i = 0; i < shards; ++i) {
                const double* const from = d[1] + (i * rows + n) * stride;
                row.insert(row.end(), from, from + parts[static_cast<std::size_t>(i)].count);
              }
              d[0][n] = reference::cross_entropy_loss_and_gradient(row.data(), d.indices(2) + n, 1, vocabulary, factor);
              for (Index i = 0; i < shards; ++i) {
                const TokenRange& part = parts[static_cast<std::size_t>(i)];
                double* const to = d[1] + (i * rows + n) * stride;
                std::copy_n(row.begin() + part.first, part.count, to);
                std::fill(to + part.count, to + stride, 0.0);
              }
            }
          },
  });
}

template <class T>
void add_shard_embedding(CudaCases& cases, Index batch, Index time, Index channels, Index vocabulary, Index shards) {
  const Index n = batch * time * channels;
  const auto parts = parts_of(vocabulary, shards);
  const auto workspace = static_cast<Index>(cuda::embedding_weight_gradient_workspace_bytes(batch, time, channels) / 4);
  const Tensor tokens{"tokens", Role::indices, batch * time, 0.0, static_cast<double>(vocabulary)};
  const std::string shape =
      fmt::format("{} B={} T={} C={} V={} shards={}", type_name<T>(), batch, time, channels, vocabulary, shards);
  cases.push_back({
      .op = "embedding",
      .name = "embedding_forward " + shape,
      .tensors = {tensor_of<T>("y", Role::output, shards * n), tokens,
                  tensor_of<T>("token_table", Role::input, vocabulary * channels)},
      .candidate =
          [=](Dev d, cudaStream_t s) {
            for (std::size_t i = 0; i < parts.size(); ++i) {
              cuda::embedding_forward<T>(d.at<T>(0) + static_cast<Index>(i) * n, d.indices(1),
                                         d.at<T>(2) + parts[i].first * channels, nullptr, batch, time, channels, s,
                                         parts[i]);
            }
          },
      .reference =
          [=](D d) {
            for (Index row = 0; row < batch * time; ++row) {
              for (Index i = 0; i < shards; ++i) {
                const TokenRange& part = parts[static_cast<std::size_t>(i)];
                const Index token = d.indices(1)[row];
                const bool held = token >= part.first && token < part.first + part.count;
                for (Index c = 0; c < channels; ++c) {
                  d[0][i * n + row * channels + c] = held ? d[2][token * channels + c] : 0.0;
                }
              }
            }
          },
  });
  cases.push_back({
      .op = "embedding",
      .name = "embedding_weight_gradient " + shape,
      .tensors = {{"d_token_table", Role::in_out, vocabulary * channels},
                  tokens,
                  tensor_of<T>("dy", Role::input, n),
                  {"workspace", Role::scratch, workspace}},
      .candidate =
          [=](Dev d, cudaStream_t s) {
            for (const TokenRange& part : parts) {
              cuda::embedding_weight_gradient<T>(d.at<float>(0) + part.first * channels, nullptr, d.indices(1),
                                                 d.at<T>(2), batch, time, channels, d.at<void>(3), s, part);
            }
          },
      .reference =
          [=](D d) { reference::embedding_weight_gradient(d[0], nullptr, d.indices(1), d[2], batch, time, channels); },
  });
}

#define STAGECRAFT_INSTANTIATE(T)                                                           \
  template void add_shard_cross_entropy<T>(CudaCases&, Index, Index, Index, Index, double); \
  template void add_shard_embedding<T>(CudaCases&, Index, Index, Index, Index, Index);
STAGECRAFT_INSTANTIATE(float)
STAGECRAFT_INSTANTIATE(cuda::Bf16)
#undef STAGECRAFT_INSTANTIATE

}  // namespace stagecraft::kernels
