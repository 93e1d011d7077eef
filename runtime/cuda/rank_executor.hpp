// A rank on a GPU, or on a slice of one.
//
// The host only enqueues: a rank's thread runs ahead of its device for a whole step and waits at the step's end. From
// the second step on an action's kernels are one graph. Messages: messages.hpp; sums over ranks: reductions.hpp; shards
// of the rank: shard_group.hpp.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "kernels/cuda/clock.hpp"
#include "runtime/cuda/device.hpp"
#include "runtime/cuda/graphs.hpp"
#include "runtime/cuda/messages.hpp"
#include "runtime/cuda/pinned.hpp"
#include "runtime/cuda/reductions.hpp"
#include "runtime/cuda/tensor_access.hpp"
#include "runtime/cuda/times.hpp"
#include "runtime/cuda/token_feed.hpp"
#include "runtime/cuda/updater.hpp"
#include "runtime/executor.hpp"

namespace stagecraft::cuda {

class RankExecutor : public Executor {
 public:
  RankExecutor(const ExecutorContext& context, RankLayout layout, const DevicePlace& place);
  ~RankExecutor() override;
  RankExecutor(const RankExecutor&) = delete;
  RankExecutor& operator=(const RankExecutor&) = delete;

  const std::vector<HeldParameter>& parameters() const override { return tensors_.parameters(); }
  void read(std::size_t parameter, int state, std::int64_t first, std::span<float> to) const override;
  void write(std::size_t parameter, int state, std::int64_t first, std::span<const float> from) override;
  std::vector<Share> shares(std::size_t parameter, int state) const override {
    return tensors_.shares(parameter, state);
  }

  void begin_step(std::int64_t step, bool timed) override;
  void compute(std::size_t index) override;
  void send(std::size_t index, int peer) override;
  void receive(std::size_t index, int peer) override;
  void reduce(std::size_t index) override;
  void sum_shard_gradients() override;
  double squared_gradient_norm() override;
  void optimizer_step(std::size_t index, double rate, double gradient_scale) override;
  double end_step() override;

  std::optional<Interval> device_time(std::size_t index) const override;
  std::optional<double> clock() const override;
  std::int64_t bytes_of(const Action& action) const override;
  std::int64_t peak_bytes() const override { return layout_.arena_bytes; }
  std::int64_t allocations() const override { return 1; }

 private:
  void prepare();
  void make_stages();
  const Action& action(std::size_t index) const { return context_.actions()[index]; }
  const Place& place(std::size_t index) const { return layout_.places[index]; }
  Stage& stage_of(const Action& action) { return *stages_.at(action.stage.value); }

  void wait_for_device(cudaStream_t stream) const;
  // All layers, or the last ones of a stage's last weight gradient.
  void launch(const GraphKey& work);
  void launch_in_buckets(std::size_t index, const Operands& operands, std::span<const Reduction> reductions);
  void enqueue(const GraphKey& work);

  ExecutorContext context_;
  RankLayout layout_;
  Device device_;
  kernels::cuda::Buffer arena_;
  Communicators communicators_;
  ShardGroup shards_;
  std::unique_ptr<kernels::cuda::Gemm> gemm_;
  kernels::cuda::CudnnAttention attention_;
  Workspace workspace_;
  Stages stages_;
  TensorAccess tensors_;
  Messages messages_;
  Reductions reductions_;
  std::optional<Updater> updater_;
  TokenFeed tokens_;
  Graphs graphs_;
  std::vector<Times> times_;  // by action
  kernels::cuda::Event origin_;
  Pinned<StepState> step_state_{1};
  Pinned<kernels::cuda::Tick> ticks_{2};  // when the step begins and ends

  // Of the step that runs.
  std::int64_t step_ = 0;
  bool timed_ = false;
  int steps_ = 0;  // begun: the first loads all kernels, the second captures all graphs
  Clock::time_point origin_time_;
  cudaEvent_t last_computed_ = nullptr;
};

}  // namespace stagecraft::cuda
