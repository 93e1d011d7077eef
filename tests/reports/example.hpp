// A two-stage pipeline with whole-number times, as a plan, a prediction and a measurement.
#pragma once

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "models/network/layer_graph.hpp"
#include "models/plan.hpp"
#include "models/trace.hpp"

namespace stagecraft {

inline Action action(ActionKind kind, int stage, int microbatch = -1) {
  return {kind, StageId{stage}, MicrobatchId{microbatch}};
}

// GPipe, 2 stages, 2 micro-batches, F `forward` s, B `backward` s, sends 1 s, steps 1 s, repeated `steps` times:
//   rank 0  F F . . . . b b B B S
//   rank 1  . F F B B ...
inline Trace example_trace(const std::string& source, double forward, double backward, int steps = 1) {
  Trace trace;
  trace.source = source;
  trace.plan_digest = "00112233aabbccdd";
  trace.network = "toy";
  trace.schedule = "gpipe";
  trace.stages = trace.microbatches = trace.ranks = 2;
  trace.replicas = 1;
  trace.tokens_per_step = 64;
  trace.stage_ranks = {RankId{0}, RankId{1}};
  trace.peak_memory = {Bytes(2048), Bytes(1024)};
  for (int step = 0; step < steps; ++step) {
    const auto add = [&](int rank, ActionKind kind, int microbatch, double start, double end, double bytes = 0) {
      trace.events.push_back(
          {step, 0, RankId{rank}, action(kind, rank, microbatch), Seconds(start), Seconds(end), Bytes(bytes)});
      return end;
    };
    double last_arrival = 0;
    std::vector<double> forward_arrival, gradient_arrival;
    for (int m = 0; m < 2; ++m) {
      const double end = add(0, ActionKind::forward, m, m * forward, (m + 1) * forward);
      forward_arrival.push_back(add(0, ActionKind::send_forward, m, end, end + 1, 100));
    }
    double at = 0;
    for (int m = 0; m < 2; ++m) {
      const auto arrival = forward_arrival[static_cast<std::size_t>(m)];
      if (arrival > at) at = add(1, ActionKind::recv_forward, m, at, arrival, 100);
      at = add(1, ActionKind::forward, m, at, at + forward);
    }
    for (int m = 0; m < 2; ++m) {
      at = add(1, ActionKind::backward, m, at, at + backward);
      gradient_arrival.push_back(add(1, ActionKind::send_backward, m, at, at + 1, 100));
    }
    add(1, ActionKind::optimizer_step, -1, at, at + 1);
    at = 2 * forward;
    for (int m = 0; m < 2; ++m) {
      const auto arrival = gradient_arrival[static_cast<std::size_t>(m)];
      if (arrival > at) at = add(0, ActionKind::recv_backward, m, at, arrival, 100);
      at = add(0, ActionKind::backward, m, at, at + backward);
    }
    last_arrival = add(0, ActionKind::optimizer_step, -1, at, at + 1);
    trace.step_times.emplace_back(last_arrival);
  }
  std::stable_sort(trace.events.begin(), trace.events.end(), [](const TraceEvent& a, const TraceEvent& b) {
    return std::tie(a.step, a.replica, a.rank, a.start) < std::tie(b.step, b.replica, b.rank, b.start);
  });
  return trace;
}

// The plan of those traces: F 2 s, B 3 s, messages 1 s, steps 1 s.
inline Plan example_plan() {
  Plan plan;
  plan.network.name = "toy";
  Layer layer;
  layer.kind = "block";
  layer.parameters = 1000;
  layer.matmul_flops.per_token = 2000;
  layer.stash.elements.per_token = 4;
  for (int i = 0; i < 4; ++i) {
    layer.name = "block." + std::to_string(i);
    boost::add_vertex(layer, *plan.network.graph);
    if (i > 0) boost::add_edge(static_cast<LayerId>(i - 1), static_cast<LayerId>(i), *plan.network.graph);
    plan.order.push_back(static_cast<LayerId>(i));
  }
  DeviceType type;
  type.name = "core";
  type.kind = DeviceKind::cpu;
  type.memory = Bytes(4096);
  type.memory_bandwidth = BytesPerSecond(1e9);
  type.peak[static_cast<std::size_t>(DataType::fp32)] = FlopsPerSecond(1e9);
  plan.cluster.name = "laptop";
  plan.cluster.device_types = {type};
  plan.cluster.devices = {{0, 0}, {0, 0}};
  Node node;
  node.name = "laptop";
  node.devices = {DeviceId{0}, DeviceId{1}};
  node.local_kind = "shared-memory";
  node.local = node.network = {Seconds(0.5), BytesPerSecond(200)};
  plan.cluster.nodes = {node};
  plan.precision = DataType::fp32;
  plan.batch = {2, 1, 2, 32};
  StageCost cost;
  cost.forward = Seconds(2);
  cost.backward_input = Seconds(2);
  cost.backward_weight = Seconds(1);
  cost.optimizer = Seconds(1);
  cost.boundary = Bytes(100);
  cost.stash = Bytes(256);
  cost.weights = cost.gradients = Bytes(512);
  cost.optimizer_state = Bytes(512);
  plan.stages = {{{0, 2}, RankId{0}, cost}, {{2, 4}, RankId{1}, cost}};
  plan.devices = {{DeviceId{0}, DeviceId{1}}};
  plan.schedule = {"gpipe", 2, 2, {}};
  for (int rank = 0; rank < 2; ++rank) {
    plan.schedule.ranks.push_back({action(ActionKind::forward, rank, 0), action(ActionKind::forward, rank, 1),
                                   action(ActionKind::backward, rank, 0), action(ActionKind::backward, rank, 1)});
  }
  plan.prediction.closed_form_step = Seconds(16);
  plan.prediction.peak_memory = {Bytes(2048), Bytes(2048)};
  return plan;
}

}  // namespace stagecraft
