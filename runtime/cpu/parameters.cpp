#include "runtime/cpu/parameters.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numbers>

#include "kernels/cpu/elementwise.hpp"
#include "kernels/cpu/optimizer.hpp"
#include "kernels/cpu/random.hpp"

namespace stagecraft::cpu {
namespace {

namespace kernels = stagecraft::kernels::cpu;

constexpr float deviation = 0.02F;

// A tensor's number in the random generator: FNV-1a of its name.
std::uint64_t tensor_number(const std::string& name) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

void add_norm(std::vector<Parameter>& list, const std::string& name, const Transformer& t) {
  list.push_back({name + ".weight", {t.hidden}, 1, 0, false});
  if (t.norm == NormKind::layer_norm) list.push_back({name + ".bias", {t.hidden}, 0, 0, false});
}

void add_linear(std::vector<Parameter>& list, const std::string& name, std::int64_t outputs, std::int64_t inputs,
                bool bias, float spread = deviation) {
  list.push_back({name + ".weight", {outputs, inputs}, 0, spread, true});
  if (bias) list.push_back({name + ".bias", {outputs}, 0, 0, false});
}

}  // namespace

std::int64_t Parameter::count() const {
  std::int64_t product = 1;
  for (const std::int64_t size : shape) product *= size;
  return product;
}

std::vector<Parameter> layer_parameters(const Transformer& t, std::int64_t layer) {
  std::vector<Parameter> list;
  if (layer == 0) {
    list.push_back({token_table, {t.vocabulary, t.hidden}, 0, deviation, true});
    if (t.position == PositionKind::learned) {
      list.push_back({"embedding.positions", {t.max_sequence, t.hidden}, 0, deviation, true});
    }
  } else if (layer <= t.layers) {
    const std::string name = fmt::format("block.{}.", layer - 1);
    const std::int64_t queries = t.heads * t.head_size, keys = t.kv_heads * t.head_size;
    const std::int64_t inner = t.activation == ActivationKind::swiglu ? 2 * t.ffn : t.ffn;
    const float residual = deviation / std::sqrt(2.0F * static_cast<float>(t.layers));
    add_norm(list, name + "attention_norm", t);
    add_linear(list, name + "attention.qkv", queries + 2 * keys, t.hidden, t.qkv_bias);
    add_linear(list, name + "attention.output", t.hidden, queries, t.linear_bias, residual);
    add_norm(list, name + "mlp_norm", t);
    add_linear(list, name + "mlp.up", inner, t.hidden, t.linear_bias);
    add_linear(list, name + "mlp.down", t.hidden, t.ffn, t.linear_bias, residual);
  } else {
    add_norm(list, "head.norm", t);
    const std::int64_t outputs = t.head == HeadKind::language_model ? t.vocabulary : 1;
    if (!t.tied_head) add_linear(list, "head.projection", outputs, t.hidden, false);
  }
  return list;
}

std::vector<Parameter> network_parameters(const Transformer& transformer) {
  std::vector<Parameter> all;
  for (std::int64_t layer = 0; layer <= transformer.layers + 1; ++layer) {
    for (Parameter& parameter : layer_parameters(transformer, layer)) all.push_back(std::move(parameter));
  }
  return all;
}

double learning_rate(const OptimizerOptions& options, std::int64_t step, std::int64_t last_step) {
  const auto s = static_cast<double>(step), warmup = static_cast<double>(options.warmup_steps);
  if (s <= warmup) return options.learning_rate * s / warmup;
  if (options.schedule == LearningRateSchedule::constant) return options.learning_rate;
  const auto end = static_cast<double>(options.decay_steps > 0 ? options.decay_steps : last_step);
  if (s >= end) return options.final_learning_rate;
  const double share = (s - warmup) / (end - warmup);
  return options.final_learning_rate +
         (options.learning_rate - options.final_learning_rate) * 0.5 * (1.0 + std::cos(std::numbers::pi * share));
}

std::vector<std::string> state_names(Optimizer optimizer) {
  if (optimizer == Optimizer::adamw) return {"first_moment", "second_moment"};
  return {"velocity"};
}

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
  for (const Entry& entry : entries_) {
    const Parameter& p = entry.parameter;
    float* data = values(entry).data();
    if (p.deviation == 0) {
      kernels::fill(data, p.mean, p.count());
    } else {
      kernels::fill_normal(data, p.count(), {seed, tensor_number(p.name)}, 0, p.mean, p.deviation);
    }
  }
}

double ParameterStore::squared_gradient_norm() const {
  double sum = 0;
  for (const Entry& entry : entries_) {
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
