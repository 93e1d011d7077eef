// A rank on a CPU core: stages whose slabs come from a pool, and messages that are copied.
#pragma once

#include <map>
#include <memory>
#include <utility>

#include "runtime/cpu/stage.hpp"
#include "runtime/executor.hpp"
#include "runtime/memory_pool.hpp"
#include "runtime/weight_versions.hpp"

namespace stagecraft::cpu {

class RankExecutor : public Executor {
 public:
  explicit RankExecutor(const ExecutorContext& context);

  const std::vector<HeldParameter>& parameters() const override { return parameters_; }
  void read(std::size_t parameter, int state, std::int64_t first, std::span<float> to) const override;
  void write(std::size_t parameter, int state, std::int64_t first, std::span<const float> from) override;

  void begin_step(std::int64_t step, bool timed) override;
  void compute(std::size_t index) override;
  void send(std::size_t index, int peer) override;
  void receive(std::size_t index, int peer) override;
  void reduce(std::size_t index) override;
  void sum_shard_gradients() override;
  double squared_gradient_norm() override;
  void optimizer_step(std::size_t index, double rate, double gradient_scale) override;
  double end_step() override { return loss_sum_; }

  std::int64_t bytes_of(const Action& action) const override;
  std::int64_t peak_bytes() const override { return pool_.peak_bytes(); }
  std::int64_t allocations() const override { return pool_.allocations(); }

 private:
  using Key = std::pair<int, std::int64_t>;  // stage, micro-batch

  void make_stages();
  void reserve_memory();
  void list_parameters();
  std::span<float> place_of(std::size_t parameter, int state) const;
  // The stage where this rank runs it for this micro-batch, else null.
  Stage* local(int stage, std::int64_t microbatch);
  Stage& stage_of(const Action& action) { return *stages_.at(action.stage.value); }
  void open(int stage, std::int64_t microbatch);
  // What this shard sends of a tensor between stages. Where all shards have all rows each sends a part, and the
  // receivers gather them.
  std::span<float> share(std::span<float> tensor) const;
  void receive_share(int peer, const MessageTag& tag, std::span<float> tensor);
  void forward(const Action& action);
  void backward(const Action& action);
  void update(const Action& action, double rate);

  ExecutorContext context_;
  MemoryPool pool_;
  Buffer scratch_;
  ShardGroup shards_;
  std::map<int, std::unique_ptr<Stage>> stages_;  // by stage number
  std::map<int, VersionedWeights> versions_;      // by stage number, in asynchronous schedules
  std::vector<HeldParameter> parameters_;
  std::vector<std::pair<const ParameterStore*, std::size_t>> places_;  // of the parameters: store and entry
  Buffer workspace_;
  // Tensors between compute and messages, from producer to consumer.
  std::map<Key, Buffer> outputs_;    // made by a forward, for the next stage
  std::map<Key, Buffer> d_outputs_;  // arrived for a backward
  std::map<Key, Buffer> d_inputs_;   // made by a backward, for the previous stage

  // Of the step that runs.
  std::int64_t step_ = 0;
  double loss_sum_ = 0;
};

}  // namespace stagecraft::cpu
