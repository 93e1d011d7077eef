// Closed forms for the time of a pipelined step, without simulating it.
//
// Stage times are of one micro-batch; M is the number of micro-batches, P = stages.size(). hops[s] is the delay of a
// message from stage s to s+1, the same in both directions; messages overlap computation and each other. An empty
// `hops` means none. Derivations and limits: docs/cost_model.md.
// REQUIRES for all: at least one stage, microbatches > 0, hops empty or P-1 of them.
#pragma once

#include <cstdint>
#include <span>

#include "models/units.hpp"

namespace stagecraft {

struct MicrobatchTimes {
  Seconds forward;
  Seconds backward;  // input and weight gradient, recomputation included
};

// T_pipeline = sum t_i: one micro-batch through all stages.
Seconds pipeline_latency(std::span<const Seconds> stages);

// T = max t_i: the period at which a full pipeline finishes micro-batches.
Seconds pipeline_period(std::span<const Seconds> stages);

// GPipe (Huang et al. 2019), any stages: exact. Equal jobs through a flow shop, forward then backward:
// sum f + (M-1) max f + sum b + (M-1) max b + 2 sum hops.
Seconds gpipe_makespan(std::span<const MicrobatchTimes> stages, std::span<const Seconds> hops,
                       std::int64_t microbatches);

// 1F1B (PipeDream-flush) with P equal stages and equal hops c: exact. (M+P-1)(f+b) + L with L = 2(P-1)c for M = 1, else
// [2(P-1)(1 + floor((M-2)/P)) + 2((M-2) mod P)] c: each block of P micro-batches waits for a round trip.
// REQUIRES: stages > 0.
Seconds one_f_one_b_uniform_makespan(MicrobatchTimes stage, int stages, Seconds hop, std::int64_t microbatches);

// 1F1B, any stages: no schedule with these stage times is faster. Stage s cannot begin before sum_{i<s} (f_i + h_i),
// then is busy for M (f_s + b_s), and sum_{i<s} (b_i + h_i) follow: the largest such sum over the stages.
Seconds one_f_one_b_lower_bound(std::span<const MicrobatchTimes> stages, std::span<const Seconds> hops,
                                std::int64_t microbatches);

// 1F1B, any stages: an estimate, no bound: sum (f + b) + 2 sum hops + (M-1) * period. The period is the slowest stage's
// f + b or, if longer, that of a stage s waiting for its P-s micro-batches in flight to come back:
// sum_{i>=s} (f_i + b_i + 2 h_i) / (P-s), where M > P-s. Exact for equal stages without hops.
Seconds one_f_one_b_estimate(std::span<const MicrobatchTimes> stages, std::span<const Seconds> hops,
                             std::int64_t microbatches);

// Idle over total time for equal stages, (P-1)/(M+P-1): GPipe's, also Chimera's, "bubble ratio".
double bubble_of_total(int stages, std::int64_t microbatches);
// Idle over ideal time for equal stages with v model chunks a rank, (P-1)/(v M): Megatron-LM's "bubble fraction".
double bubble_of_ideal(int stages, std::int64_t microbatches, int chunks = 1);
// The zero-bubble papers' rate: (S - work) / S with S the longest span of a rank from its first start to its last end.
double bubble_of_span(Seconds span, Seconds work);

// Narayanan et al. 2021, section 3.3: (b'/b + p - 1)(t_f(b) + t_b(b)), b' the samples a replica, b those a micro-batch.
// REQUIRES: b divides b'.
Seconds megatron_batch_time(std::int64_t replica_batch, std::int64_t microbatch, int stages, MicrobatchTimes stage);

}  // namespace stagecraft
