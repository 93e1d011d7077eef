#include "runtime/parameters.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numbers>
#include <numeric>
#include <thread>

#include "kernels/cpu/elementwise.hpp"
#include "kernels/cpu/random.hpp"

namespace stagecraft {
namespace {

constexpr float deviation = 0.02F;

// A tensor's number in the random generator: FNV-1a of its name.
std::uint64_t tensor_number(const std::string& name) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

void add_norm(std::vector<Parameter>& list, const std::string& name, const Transformer& t) {
  list.push_back({name + ".weight", {t.hidden}, 1, 0, false, true});
  if (t.norm == NormKind::layer_norm) list.push_back({name + ".bias", {t.hidden}, 0, 0, false, true});
}

// A product into attention or MLP, which shards cut by rows, section by section.
void add_inward(std::vector<Parameter>& list, const std::string& name, const std::vector<std::int64_t>& sections,
                std::int64_t inputs, bool bias) {
  const std::int64_t outputs = std::accumulate(sections.begin(), sections.end(), std::int64_t{0});
  list.push_back({name + ".weight", {outputs, inputs}, 0, deviation, true, false, Split::rows, sections});
  if (bias) list.push_back({name + ".bias", {outputs}, 0, 0, false, false, Split::rows, sections});
}

// A product back into the residual stream, which shards cut by columns; its bias they all have.
void add_outward(std::vector<Parameter>& list, const std::string& name, std::int64_t outputs, std::int64_t inputs,
                 bool bias, float spread) {
  list.push_back({name + ".weight", {outputs, inputs}, 0, spread, true, false, Split::columns});
  if (bias) list.push_back({name + ".bias", {outputs}, 0, 0, false});
}

}  // namespace

std::vector<Parameter> layer_parameters(const Transformer& t, std::int64_t layer) {
  std::vector<Parameter> list;
  if (layer == 0) {
    list.push_back({token_table, {t.vocabulary, t.hidden}, 0, deviation, true, false, Split::rows, {t.vocabulary}});
    if (t.position == PositionKind::learned) {
      list.push_back({"embedding.positions", {t.max_sequence, t.hidden}, 0, deviation, true});
    }
  } else if (layer <= t.layers) {
    const std::string name = fmt::format("block.{}.", layer - 1);
    const std::int64_t queries = t.heads * t.head_size, keys = t.kv_heads * t.head_size;
    const bool gated = t.activation == ActivationKind::swiglu;
    const float residual = deviation / std::sqrt(2.0F * static_cast<float>(t.layers));
    add_norm(list, name + "attention_norm", t);
    add_inward(list, name + "attention.qkv", {queries, keys, keys}, t.hidden, t.qkv_bias);
    add_outward(list, name + "attention.output", t.hidden, queries, t.linear_bias, residual);
    add_norm(list, name + "mlp_norm", t);
    add_inward(list, name + "mlp.up", gated ? std::vector{t.ffn, t.ffn} : std::vector{t.ffn}, t.hidden, t.linear_bias);
    add_outward(list, name + "mlp.down", t.hidden, t.ffn, t.linear_bias, residual);
  } else {
    add_norm(list, "head.norm", t);
    const std::int64_t outputs = t.head == HeadKind::language_model ? t.vocabulary : 1;
    if (!t.tied_head) add_inward(list, "head.projection", {outputs}, t.hidden, false);
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

void fill_initial(const Parameter& p, std::uint64_t seed, std::span<float> values, int threads) {
  assert(static_cast<std::int64_t>(values.size()) == p.count());
  if (p.deviation == 0) return kernels::cpu::fill(values.data(), p.mean, p.count());
  // Elements do not depend on each other.
  const std::int64_t share = (p.count() + threads - 1) / threads;
  std::vector<std::thread> others;
  const auto fill = [&](std::int64_t first) {
    kernels::cpu::fill_normal(values.data() + first, std::min(share, p.count() - first), {seed, tensor_number(p.name)},
                              first, p.mean, p.deviation);
  };
  for (std::int64_t first = share; first < p.count(); first += share) others.emplace_back(fill, first);
  fill(0);
  for (std::thread& thread : others) thread.join();
}

}  // namespace stagecraft
