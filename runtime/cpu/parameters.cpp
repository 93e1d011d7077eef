#include "runtime/cpu/parameters.hpp"

#include <cassert>

#include "kernels/cpu/elementwise.hpp"
#include "kernels/cpu/optimizer.hpp"

namespace stagecraft::cpu {

namespace kernels = stagecraft::kernels::cpu;

ParameterStore::ParameterStore(std::vector<Parameter> owned, std::vector<Parameter> copies, Optimizer optimizer,
                               MemoryPool& pool)
    : optimizer_(optimizer) {
  std::int64_t size = 0;
  const auto add = [&](Parameter& parameter, bool copy) {
    const std::int64_t count = parameter.count();
    entries_.push_back({std::move(parameter), size, copy});
    size += (count + 15) / 16 * 16;  // tensors start at cache lines
  };
  for (Parameter& parameter : owned) add(parameter, false);
  for (Parameter& parameter : copies) add(parameter, true);
  values_ = pool.allocate_zeroed(size, "weights");
  gradients_ = pool.allocate_zeroed(size, "gradients");
  for (std::size_t i = 0; i < state_names(optimizer).size(); ++i) {
    state_.push_back(pool.allocate_zeroed(size, "optimizer state"));
  }
}

std::span<float> ParameterStore::part(const Buffer& slab, const Entry& entry) {
  return slab.span().subspan(static_cast<std::size_t>(entry.offset), static_cast<std::size_t>(entry.parameter.count()));
}

ParameterView ParameterStore::view(std::size_t position) const {
  assert(position < entries_.size());
  const std::int64_t offset = entries_[position].offset;
  return {values_.data() + offset, gradients_.data() + offset};
}

void ParameterStore::initialize(std::uint64_t seed) {
  for (const Entry& entry : entries_) fill_initial(entry.parameter, seed, values(entry));
}

double ParameterStore::squared_gradient_norm(bool split_only) const {
  double sum = 0;
  for (const Entry& entry : entries_) {
    if (split_only && entry.parameter.split == Split::none) continue;
    if (!entry.copy) sum += kernels::squared_norm(gradients(entry).data(), entry.parameter.count());
  }
  return sum;
}

void ParameterStore::step(const OptimizerOptions& options, double rate, std::int64_t step, double gradient_scale) {
  const auto scale = static_cast<float>(gradient_scale);
  for (const Entry& entry : entries_) {
    const std::int64_t count = entry.parameter.count();
    float* const w = values(entry).data();
    float* const dw = gradients(entry).data();
    const auto decay = static_cast<float>(entry.parameter.decayed ? options.weight_decay : 0);
    if (optimizer_ == Optimizer::adamw) {
      const stagecraft::kernels::AdamW adamw{static_cast<float>(rate), static_cast<float>(options.beta1),
                                             static_cast<float>(options.beta2), static_cast<float>(options.epsilon),
                                             decay};
      kernels::adamw_step(w, state(0, entry).data(), state(1, entry).data(), dw, count, adamw, step, scale);
    } else {
      const stagecraft::kernels::Sgd sgd{static_cast<float>(rate), static_cast<float>(options.momentum), decay};
      kernels::sgd_step(w, state(0, entry).data(), dw, count, sgd, scale);
    }
    kernels::fill(dw, 0.0F, count);
  }
}

}  // namespace stagecraft::cpu
