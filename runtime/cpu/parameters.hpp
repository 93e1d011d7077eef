// One stage's share of the network's tensors, in memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/memory_pool.hpp"
#include "runtime/parameters.hpp"

namespace stagecraft::cpu {

// One tensor of a module, in memory.
struct ParameterView {
  float* value = nullptr;
  float* gradient = nullptr;
};

// Values, gradients and optimizer state of a stage, each one slab.
class ParameterStore {
 public:
  struct Entry {
    Parameter parameter;
    std::int64_t offset = 0;  // in floats, into each slab
    bool copy = false;        // of a table that another rank owns: equal at all times, not to be counted twice
  };

  // `copies` are appended to `owned`. Gradients and state start at zero, values undefined until initialize or a load.
  ParameterStore(std::vector<Parameter> owned, std::vector<Parameter> copies, Optimizer optimizer, MemoryPool& pool);

  void initialize(std::uint64_t seed);

  const std::vector<Entry>& entries() const { return entries_; }
  // REQUIRES: position < entries().size().
  ParameterView view(std::size_t position) const;
  // The span of an entry in the values, gradients or a slab of optimizer state.
  std::span<float> values(const Entry& entry) const { return part(values_, entry); }
  std::span<float> gradients(const Entry& entry) const { return part(gradients_, entry); }
  std::span<float> all_values() const { return values_.span(); }
  std::span<float> all_gradients() const { return gradients_.span(); }
  // AdamW: first and second moment; SGD: velocity.
  int states() const { return static_cast<int>(state_.size()); }
  std::string state_name(int index) const { return state_names(optimizer_)[static_cast<std::size_t>(index)]; }
  std::span<float> state(int index, const Entry& entry) const {
    return part(state_[static_cast<std::size_t>(index)], entry);
  }

  // Sum of squares of the gradients, copies left out; `split_only`: and tensors that every shard holds whole.
  double squared_gradient_norm(bool split_only = false) const;
  // Updates the values and sets the gradients to zero. Step counts from 1.
  void step(const OptimizerOptions& options, double rate, std::int64_t step, double gradient_scale);

 private:
  static std::span<float> part(const Buffer& slab, const Entry& entry);

  Optimizer optimizer_;
  std::vector<Entry> entries_;
  Buffer values_, gradients_;
  std::vector<Buffer> state_;
};

}  // namespace stagecraft::cpu
