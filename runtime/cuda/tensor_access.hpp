// What the host reads and writes of a rank's parameters and of its optimizer's state, for checkpoints and weights.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "kernels/cuda/device.hpp"
#include "runtime/cuda/stage.hpp"
#include "runtime/executor.hpp"

namespace stagecraft::cuda {

// Parameters, states and elements as in Executor, whose calls of these names it does.
class TensorAccess {
 public:
  // Everything outlives it.
  TensorAccess(const RankLayout& layout, const WorkerPlace& place, int replicas, std::byte* arena, cudaStream_t stream);

  const std::vector<HeldParameter>& parameters() const { return parameters_; }
  void read(std::size_t parameter, int state, std::int64_t first, std::span<float> to) const;
  void write(std::size_t parameter, int state, std::int64_t first, std::span<const float> from);
  std::vector<Executor::Share> shares(std::size_t parameter, int state) const;

 private:
  struct Where {
    const RankLayout::Stage* stage = nullptr;
    const ParameterEntry* entry = nullptr;
  };
  bool is_shared(const Where& where, int state) const;
  KeptElements kept(const Where& where) const { return kept_elements(where.stage->layout, *where.entry, replica_); }
  // Of element `first` of a value or state that is kept here.
  std::byte* address(const Where& where, int state, std::int64_t first) const;
  void write_shared(const Where& where, int state, std::span<const float> from);

  const RankLayout& layout_;
  int replica_, replicas_;
  std::byte* arena_;
  cudaStream_t stream_;
  std::vector<HeldParameter> parameters_;
  std::vector<Where> places_;  // of the parameters
};

}  // namespace stagecraft::cuda
