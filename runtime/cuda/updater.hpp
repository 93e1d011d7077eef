// The optimizer of a rank's stages on its GPU: the norm of their gradients, and one launch a stage that updates all
// tensors, or with a sharded optimizer the replica's share of them.
#pragma once

#include <map>
#include <vector>

#include "kernels/cuda/optimizer.hpp"
#include "runtime/cuda/pinned.hpp"
#include "runtime/cuda/stage.hpp"

namespace stagecraft::cuda {

class Updater {
 public:
  Updater(const RankLayout& layout, std::byte* arena, int replica, Optimizer optimizer, const OptimizerOptions& options,
          cudaStream_t stream);

  // Of the gradients that step() will use, of the stages that the rank counts, copies left out. Enqueued; the host
  // reads the result when the stream is through.
  void enqueue_squared_norm();
  double squared_norm() const { return host_[0].squared_norm; }
  // Updates the stage's parameters and forgets the gradients that micro-batches only ever add to. Step counts from 1.
  void step(int stage, double rate, std::int64_t step, double gradient_scale);

 private:
  // In the arena, with a copy on the host.
  struct Scalars {
    double squared_norm = 0;
    kernels::cuda::AdamWStep adamw{};
    float learning_rate = 0;
    float gradient_scale = 1;
  };
  struct Tensors {
    const RankLayout::Stage* stage = nullptr;
    std::byte* list = nullptr;  // in the arena
    std::int64_t count = 0, blocks = 0;
  };

  template <class Record, class Fill>
  void list_tensors(const RankLayout::Stage& stage, Fill&& fill);
  float* slab(std::int64_t offset) const { return reinterpret_cast<float*>(arena_ + offset); }

  const RankLayout& layout_;
  std::byte* arena_;
  int replica_;
  Optimizer optimizer_;
  OptimizerOptions options_;
  cudaStream_t stream_;
  Scalars* scalars_;        // in the arena
  double* norm_workspace_;  // in the arena
  Pinned<Scalars> host_{1};
  std::map<int, Tensors> tensors_;  // by stage number
};

}  // namespace stagecraft::cuda
