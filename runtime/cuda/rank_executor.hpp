// A rank on a GPU, or on a slice of one.
//
// The host only enqueues: a rank's thread runs ahead of its device for a whole step and waits at the step's end. What a
// rank waits for is said to the streams, as events. Messages between ranks of one process need no buffers beyond the
// slabs and no acknowledgement:
//
//   SEND_F  tells the receiver where the output lies, when it will be ready, and where the gradient may be put later
//   RECV_F  the receiver's copy engine fetches the output into the slab as soon as both exist. The sender's slab lives
//           until the micro-batch's backward, which the receiver's own backward precedes, so nothing is overwritten
//   SEND_B  the copy engine puts the gradient straight into the other's slab, which waits for it since its forward;
//           it leaves from one of two outboxes, so that the next backward need not wait for it
//   RECV_B  the computation waits for that copy
//
// In inference, which has no backwards, the receiver of an output says when it has fetched it.
//
// Between processes SEND and RECV are NCCL's, on the streams for departures and arrivals, with a communicator for each
// direction between two ranks. They pair by order, which the checker has proven of the list (Receives::as_sent).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/cuda/device.hpp"
#include "runtime/cuda/graphs.hpp"
#include "runtime/cuda/pinned.hpp"
#include "runtime/cuda/reductions.hpp"
#include "runtime/cuda/stage.hpp"
#include "runtime/cuda/times.hpp"
#include "runtime/cuda/updater.hpp"
#include "runtime/executor.hpp"

namespace stagecraft::cuda {

class RankExecutor : public Executor {
 public:
  RankExecutor(const ExecutorContext& context, RankLayout layout, const DevicePlace& place);
  ~RankExecutor() override;
  RankExecutor(const RankExecutor&) = delete;
  RankExecutor& operator=(const RankExecutor&) = delete;

  const std::vector<HeldParameter>& parameters() const override { return parameters_; }
  void read(std::size_t parameter, int state, std::int64_t first, std::span<float> to) const override;
  void write(std::size_t parameter, int state, std::int64_t first, std::span<const float> from) override;
  std::vector<Share> shares(std::size_t parameter, int state) const override;

  void begin_step(std::int64_t step) override;
  void compute(std::size_t index) override;
  void send(std::size_t index, int peer) override;
  void receive(std::size_t index, int peer) override;
  void reduce(std::size_t index) override;
  void sum_shard_gradients() override;
  double squared_gradient_norm() override;
  void optimizer_step(std::size_t index, double rate, double gradient_scale) override;
  double end_step() override;

  std::optional<Interval> device_time(std::size_t index) const override;
  std::int64_t bytes_of(const Action& action) const override;
  std::int64_t peak_bytes() const override { return layout_.arena_bytes; }
  std::int64_t allocations() const override { return 1; }

 private:
  using Key = std::pair<int, std::int64_t>;  // stage, micro-batch
  // Where a gradient may be put: another rank's slab.
  struct Landing {
    std::byte* address = nullptr;
    int gpu = 0;
  };
  struct OutputMessage {
    const std::byte* output = nullptr;
    int gpu = 0;
    cudaEvent_t ready = nullptr;
    Landing d_output;
  };
  struct GradientMessage {
    cudaEvent_t arrived = nullptr;
  };
  struct FetchedMessage {
    cudaEvent_t fetched = nullptr;
  };
  struct Awaited {
    std::size_t index = 0;
    cudaEvent_t arrived = nullptr;
  };
  struct Unfetched {
    int receiver = 0;
    std::int32_t microbatch = 0;
  };
  void make_stages();
  const Action& action(std::size_t index) const { return context_.actions()[index]; }
  const Place& place(std::size_t index) const { return layout_.places[index]; }
  Stage& stage_of(const Action& action) { return *stages_.at(action.stage.value); }
  // Of element `first` of a value or state that is kept here.
  std::byte* address(std::size_t parameter, int state, std::int64_t first) const;
  bool is_shared(std::size_t parameter, int state) const;
  KeptElements kept(std::size_t parameter) const;
  void write_shared(std::size_t parameter, int state, std::span<const float> from);
  std::byte* outbox(int number) const;

  void prefetch(std::int64_t step);
  std::pair<std::span<std::int32_t>, std::span<std::int32_t>> host_tokens(std::int64_t step,
                                                                          std::int64_t microbatch) const;
  void upload_tokens(const Stage& stage, std::int64_t microbatch, int slab);
  void wait_until_fetched(int stage, int slab);
  void wait_for_device(cudaStream_t stream) const;
  void await_message(const Action& action);
  void send_to_process(std::size_t index, int peer);
  cudaEvent_t receive_from_process(std::size_t index, int peer);
  // All layers, or the last ones of a stage's last weight gradient.
  void launch(const Action& action, const Place& place, LayerSpan layers);
  void launch_in_buckets(std::size_t index, std::span<const Reduction> reductions);
  void enqueue(const Action& action, const Place& place, LayerSpan layers);
  // Both return what the computation waits for.
  cudaEvent_t receive_output(std::size_t index, int peer);
  cudaEvent_t receive_gradient(std::size_t index, int peer);
  void copy(std::byte* to, int to_gpu, const std::byte* from, int from_gpu, std::int64_t bytes, cudaStream_t stream);
  static void wait(cudaStream_t stream, cudaEvent_t event);

  ExecutorContext context_;
  RankLayout layout_;
  Device device_;
  kernels::cuda::Buffer arena_;
  std::unique_ptr<kernels::cuda::Gemm> gemm_;
  kernels::cuda::CudnnAttention attention_;
  Workspace workspace_;
  std::map<int, std::unique_ptr<Stage>> stages_;  // by stage number
  std::vector<HeldParameter> parameters_;
  std::vector<std::pair<const Stage*, std::size_t>> places_;  // of the parameters: stage and entry
  std::optional<Updater> updater_;
  std::optional<Communicators> communicators_;
  std::optional<Reductions> reductions_;
  Graphs graphs_;
  std::vector<Times> times_;  // by action
  kernels::cuda::Event origin_;

  // (2, M, 2, N): of this step and the next, for each micro-batch the tokens and then the targets.
  std::optional<Pinned<std::int32_t>> tokens_;
  std::int64_t fetched_[2] = {-1, -1};  // which steps
  Pinned<double> losses_;               // by micro-batch

  // Of the step that runs.
  std::int64_t step_ = 0;
  int steps_ = 0;  // begun: the first loads all kernels, the second captures all graphs
  Clock::time_point origin_time_;
  std::map<Key, cudaEvent_t> freed_;                    // by stage and slab: when its last micro-batch was done
  std::map<Key, Landing> landings_;                     // by stage and micro-batch
  std::map<Action, Awaited> awaited_;                   // by RECV: what a computation will wait for
  std::map<std::pair<int, int>, Unfetched> unfetched_;  // inference, by stage and slab: outputs offered
  cudaEvent_t sent_[outboxes] = {};                     // when an outbox had left
  cudaEvent_t last_computed_ = nullptr;
};

}  // namespace stagecraft::cuda
