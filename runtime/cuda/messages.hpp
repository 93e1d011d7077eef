// What a rank on a GPU sends to other ranks and gets from them: outputs and gradients between stages.
//
// The host only enqueues; what a rank waits for is said to the streams, as events. Messages between ranks of one
// process need no buffers beyond the slabs and no acknowledgement:
//
//   SEND_F  tells the receiver where the output lies, when it will be ready, and where the gradient may be put later
//   RECV_F  the receiver's copy engine fetches the output into the slab as soon as both exist, or into the inbox where
//           the slab is in use until the forward: that begins with a copy. The sender's slab lives until the
//           micro-batch's backward, which the receiver's own backward precedes, so nothing is overwritten
//   SEND_B  the copy engine puts the gradient straight into the other's slab, which waits for it since its forward;
//           it leaves from one of two outboxes, so that the next backward need not wait for it
//   RECV_B  the computation waits for that copy
//
// Between slices of a GPU nothing is sent: the forward begins with the copy, and the backward writes its gradient where
// it belongs.
//
// In inference, which has no backwards, the receiver of an output says when it has fetched it.
//
// Between processes SEND and RECV are NCCL's, on the streams for departures and arrivals, with a communicator for each
// direction between two ranks. They pair by order, which the checker has proven of the list (Receives::as_sent).
//
// Where a rank is several shards and all of them have all rows of a tensor, each sends a part to its like, and the
// receivers gather the parts before they compute.
#pragma once

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "runtime/cuda/device.hpp"
#include "runtime/cuda/nccl.hpp"
#include "runtime/cuda/shard_group.hpp"
#include "runtime/cuda/stage.hpp"
#include "runtime/cuda/times.hpp"
#include "runtime/executor.hpp"

namespace stagecraft::cuda {

using Stages = std::map<int, std::unique_ptr<Stage>>;  // by stage number

// What a computation reads and writes outside of its slab.
struct Operands {
  const std::byte* input = nullptr;  // of a forward, to be copied into the slab; null: is there
  std::byte* d_input = nullptr;      // where a backward puts the gradient for another rank
  auto operator<=>(const Operands&) const = default;
};

class Messages {
 public:
  // Everything outlives it. `communicators`: those that groups() asked for.
  Messages(const ExecutorContext& context, const RankLayout& layout, const Device& device,
           const Communicators& communicators, const ShardGroup& shards, const Stages& stages, std::byte* arena);

  // Between processes two workers for the messages from the first to the second; none in one process.
  static std::vector<std::vector<int>> groups(const ExecutorContext& context);

  // When nobody looks at the last step's events any more. `timed`: the trace is to know how long each message took.
  void begin_step(bool timed);
  // SEND of what the rank computed last, which is there after `computed`.
  void send(std::size_t index, int peer, cudaEvent_t computed, Times& times);
  // RECV may come much earlier in the list than the computation that awaits it.
  void receive(std::size_t index, int peer, Times& times);
  // Makes the computation wait for what it needs: a message, and that its outbox is empty. `times`: of all actions.
  Operands await(std::size_t computation, std::vector<Times>& times);
  // Without backwards nothing but the receiver says that an output may be written again.
  void wait_until_fetched(int stage, int slab);
  void wait_until_all_fetched();
  // Something may arrive in the slab after `done`.
  void release(int stage, int slab, cudaEvent_t done) { freed_[{stage, slab}] = done; }
  // And in the inbox.
  void release_inbox(cudaEvent_t done) { inbox_freed_ = done; }

  // Of a tensor between two stages, what this shard sends.
  std::int64_t bytes(const StageLayout& layout) const { return part_of(layout).bytes; }

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
    std::size_t index = 0;  // of the RECV
    cudaEvent_t arrived = nullptr;
    std::byte* tensor = nullptr;
    const std::byte* elsewhere = nullptr;  // where an output is that the forward copies
  };
  struct Unfetched {
    int receiver = 0;
    std::int32_t microbatch = 0;
  };
  struct Part {
    std::int64_t offset = 0, bytes = 0;
  };

  const Action& action(std::size_t index) const { return context_.actions()[index]; }
  const Stage& stage_of(const Action& action) const { return *stages_.at(action.stage.value); }
  Part part_of(const StageLayout& layout) const;
  // One of the buffers that gradients leave from.
  std::byte* outbox(int number) const;
  std::byte* inbox() const { return arena_ + layout_.inbox; }
  // Whether computations reach a tensor of the stage's boundary where it is.
  bool is_reached(int gpu, const StageLayout& layout) const;
  // Where a RECV puts what comes.
  std::byte* destination(std::size_t index) const;
  Awaited arrives_at_destination(std::size_t index, cudaEvent_t arrived) const;
  // The stream writes to an output's destination next.
  void wait_until_free(std::size_t index, cudaStream_t stream);
  void offer_output(std::size_t index, int peer, cudaEvent_t computed);
  void put_gradient(std::size_t index, int peer, cudaEvent_t computed, Times& times);
  void send_to_process(std::size_t index, int peer, cudaEvent_t computed, Times& times);
  // What the stream is given next sends what is there after `computed`.
  void leave(cudaStream_t stream, cudaEvent_t computed, Times& times) const;
  Awaited fetch_output(std::size_t index, int peer, Times& times);
  // These return what the computation waits for.
  cudaEvent_t gradient_arrived(std::size_t index, int peer);
  cudaEvent_t receive_from_process(std::size_t index, int peer, Times& times);

  const ExecutorContext& context_;
  const RankLayout& layout_;
  const Device& device_;
  const Communicators& communicators_;
  const ShardGroup& shards_;
  const Stages& stages_;
  std::byte* arena_;

  // Of the step that runs.
  bool timed_ = false;
  std::map<Key, cudaEvent_t> freed_;  // by stage and slab: when its last micro-batch was done
  cudaEvent_t inbox_freed_ = nullptr;
  std::map<Key, Landing> landings_;                     // by stage and micro-batch
  std::map<Action, Awaited> awaited_;                   // by RECV
  std::map<std::pair<int, int>, Unfetched> unfetched_;  // inference, by stage and slab: outputs offered
  cudaEvent_t sent_[outboxes] = {};                     // when an outbox had left
};

}  // namespace stagecraft::cuda
