// What happened, or would happen, when: written by the timeline, by SimGrid and by the runtime alike.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "models/json_reader.hpp"
#include "models/schedule/schedule.hpp"
#include "models/units.hpp"

namespace stagecraft {

struct TraceEvent {
  int step = 0;
  int replica = 0;
  RankId rank;
  Action action;
  Seconds start;  // since the start of the step
  Seconds end;    // compute: the rank was busy in between; SEND: in flight; RECV: the rank waited; REDUCE: start to end
  Bytes bytes;    // of messages and reductions; zero for compute
  int shard = 0;  // of the rank
  bool operator==(const TraceEvent&) const = default;
};

struct Trace {
  // Context: what ran, where, when.
  std::string source;  // "timeline", "simgrid", "cpu", "cuda"
  std::string tool_version;
  std::string machine;      // "Intel Xeon, 2 cores"; empty for simulations
  std::string date;         // ISO 8601, UTC; empty for simulations: same input, same bytes
  std::string plan_digest;  // of the plan's JSON text; empty when it never was a file
  std::string network;
  std::string schedule;
  int stages = 0;
  int microbatches = 0;
  int ranks = 0;  // pipeline ranks of a replica
  int replicas = 0;
  int shards = 1;  // devices of a rank; simulations have one for all, which go in step
  std::int64_t tokens_per_step = 0;
  std::vector<RankId> stage_ranks;  // by stage
  std::vector<std::string> warnings;
  // Of all steps that ran; `events` may cover fewer (the last ones).
  std::vector<Seconds> step_times;
  std::vector<double> losses;      // empty for simulations
  std::vector<Bytes> peak_memory;  // by row
  // Hz, by row: what the device's cores ticked at, median over the traced steps; empty where devices do not say.
  std::vector<double> clocks;
  std::vector<TraceEvent> events;  // by step, then replica, rank, shard, start

  // A row is one device: (replica * shards + shard) * ranks + rank.
  int rows() const { return replicas * shards * ranks; }
  int row_of(const TraceEvent& event) const {
    return (event.replica * shards + event.shard) * ranks + event.rank.value;
  }
  // "rank 3", and where there are several: "1 / rank 3", "rank 3.0" (shard 0 of the rank), "1 / rank 3.0".
  std::string row_name(int row) const;
};

// Figures that every report shows; all over the traced steps, medians.
struct TraceSummary {
  Seconds step;            // median of step_times
  double bubble = 0;       // idle / total over the ranks, from the first forward's start to the last backward's end
  double span_bubble = 0;  // zero-bubble papers' rate: (S - busy) / S with S the longest per-rank span, busy its work
  struct KindTime {
    StageId stage;
    ActionKind kind = ActionKind::forward;
    Seconds median;
    Seconds low, high;  // 10th and 90th percentile
    int count = 0;
  };
  std::vector<KindTime> kinds;  // compute, sends, reductions and steps, ordered by stage, then kind
};
// REQUIRES: at least one event and one step time.
TraceSummary summarize(const Trace& trace);

// Throws bad_input. Refuses events of ranks, stages or micro-batches that the header does not announce.
Trace trace_from_json(const JsonValue& value);
Json to_json(const Trace& trace);
Trace load_trace(const std::filesystem::path& path);
void save_trace(const Trace& trace, const std::filesystem::path& path);

}  // namespace stagecraft
