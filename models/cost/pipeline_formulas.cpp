#include "models/cost/pipeline_formulas.hpp"

#include <algorithm>
#include <cassert>

namespace stagecraft {
namespace {

Seconds sum(std::span<const Seconds> times) {
  Seconds total;
  for (const Seconds time : times) total += time;
  return total;
}

Seconds round_trip(MicrobatchTimes stage) { return stage.forward + stage.backward; }

void check([[maybe_unused]] std::span<const MicrobatchTimes> stages, [[maybe_unused]] std::span<const Seconds> hops,
           [[maybe_unused]] std::int64_t microbatches) {
  assert(!stages.empty() && microbatches > 0);
  assert(hops.empty() || hops.size() + 1 == stages.size());
}

Seconds hop_after(std::span<const Seconds> hops, std::size_t stage) {
  return stage < hops.size() ? hops[stage] : Seconds(0);
}

}  // namespace

Seconds pipeline_latency(std::span<const Seconds> stages) {
  assert(!stages.empty());
  return sum(stages);
}

Seconds pipeline_period(std::span<const Seconds> stages) {
  assert(!stages.empty());
  return *std::max_element(stages.begin(), stages.end());
}

Seconds gpipe_makespan(std::span<const MicrobatchTimes> stages, std::span<const Seconds> hops,
                       std::int64_t microbatches) {
  check(stages, hops, microbatches);
  Seconds total = 2 * sum(hops);
  Seconds slowest_forward;
  Seconds slowest_backward;
  for (const MicrobatchTimes& stage : stages) {
    total += round_trip(stage);
    slowest_forward = std::max(slowest_forward, stage.forward);
    slowest_backward = std::max(slowest_backward, stage.backward);
  }
  return total + static_cast<double>(microbatches - 1) * (slowest_forward + slowest_backward);
}

Seconds one_f_one_b_uniform_makespan(MicrobatchTimes stage, int stages, Seconds hop, std::int64_t microbatches) {
  assert(stages > 0 && microbatches > 0);
  const std::int64_t p = stages;
  const std::int64_t m = microbatches;
  const std::int64_t hops = m == 1 ? 2 * (p - 1) : 2 * (p - 1) * (1 + (m - 2) / p) + 2 * ((m - 2) % p);
  return static_cast<double>(m + p - 1) * round_trip(stage) + static_cast<double>(p == 1 ? 0 : hops) * hop;
}

Seconds one_f_one_b_lower_bound(std::span<const MicrobatchTimes> stages, std::span<const Seconds> hops,
                                std::int64_t microbatches) {
  check(stages, hops, microbatches);
  Seconds bound;
  Seconds before;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    bound = std::max(bound, before + static_cast<double>(microbatches) * round_trip(stages[s]));
    before += round_trip(stages[s]) + 2 * hop_after(hops, s);
  }
  return bound;
}

Seconds one_f_one_b_estimate(std::span<const MicrobatchTimes> stages, std::span<const Seconds> hops,
                             std::int64_t microbatches) {
  check(stages, hops, microbatches);
  Seconds period;
  Seconds behind;  // from stage s to the last one and back
  for (std::size_t s = stages.size(); s-- > 0;) {
    const auto in_flight = static_cast<std::int64_t>(stages.size() - s);
    behind += round_trip(stages[s]) + 2 * hop_after(hops, s);
    period = std::max(period, round_trip(stages[s]));
    if (microbatches > in_flight) period = std::max(period, behind / static_cast<double>(in_flight));
  }
  return behind + static_cast<double>(microbatches - 1) * period;
}

double bubble_of_total(int stages, std::int64_t microbatches) {
  assert(stages > 0 && microbatches > 0);
  return (stages - 1) / static_cast<double>(microbatches + stages - 1);
}

double bubble_of_ideal(int stages, std::int64_t microbatches, int chunks) {
  assert(stages > 0 && microbatches > 0 && chunks > 0);
  return (stages - 1) / (static_cast<double>(chunks) * static_cast<double>(microbatches));
}

double bubble_of_span(Seconds span, Seconds work) { return (span - work) / span; }

Seconds megatron_batch_time(std::int64_t replica_batch, std::int64_t microbatch, int stages, MicrobatchTimes stage) {
  assert(stages > 0 && microbatch > 0 && replica_batch > 0 && replica_batch % microbatch == 0);
  const std::int64_t microbatches = replica_batch / microbatch;
  return static_cast<double>(microbatches + stages - 1) * round_trip(stage);
}

}  // namespace stagecraft
