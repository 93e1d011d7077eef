// What each rank does, in order: the data that simulators and runtimes execute alike.
//
// Three types, one a pass:
//   ComputeSchedule   forwards and backwards only; what a generator (gpipe.hpp, one_f_one_b.hpp, ...) makes
//   LoweredSchedule   with sends, receives, gradient reductions and optimizer steps; what lower() makes
//   both checked by check() (checker.hpp), which proves that every rank can finish or says who cannot
//
// What executing a LoweredSchedule means, everywhere:
//   F B I W     occupy the rank, one after the other, in list order. An overlapped F and the B behind it are one block:
//               it starts when the messages for both are there, and what both make leaves when it ends.
//   SEND_*      starts when the rank reaches it and leaves the rank free; the message arrives after the path's
//               latency plus bytes / bandwidth.
//   RECV_*      the rank waits until the message has arrived.
//   REDUCE_*    a collective: starts when every participant has reached it, leaves the rank free; STEP waits for it.
//               REDUCE_TIED sums the gradient of a table shared by the first and the last stage; REDUCE_GRAD sums a
//               stage's gradients over the data-parallel replicas and the ranks that share the stage, after the
//               REDUCE_TIED of that stage.
//   STEP        the optimizer step of a stage; occupies the rank, after the reductions of that stage. In asynchronous
//               schedules it names the last micro-batch of its update (0STEP3).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/ids.hpp"

namespace stagecraft {

enum class ActionKind : std::uint8_t {
  forward,          // F
  backward,         // B: input and weight gradient in one
  backward_input,   // I
  backward_weight,  // W
  send_forward,     // SEND_F: the activation that this stage made, to the next stage
  recv_forward,     // RECV_F: the activation that this stage needs, from the previous stage
  send_backward,    // SEND_B: the gradient that this stage made, to the previous stage
  recv_backward,    // RECV_B: the gradient that this stage needs, from the next stage
  unshard,          // UNSHARD, RESHARD: of torch's FSDP; carried in CSV files, without effect in our executors
  reshard,
  reduce_tied,     // REDUCE_TIED
  reduce_grad,     // REDUCE_GRAD
  optimizer_step,  // STEP
};

struct Action {
  ActionKind kind = ActionKind::forward;
  StageId stage;                // always the stage of the rank that acts, also for sends and receives
  MicrobatchId microbatch{-1};  // -1 where the kind has none (UNSHARD ... STEP)
  bool overlapped = false;      // F only: one block with the B right behind it (torch's OVERLAP_F_B)
  constexpr auto operator<=>(const Action&) const = default;
};

// "2F0", "1SEND_B3", "0REDUCE_GRAD"; print and parse are inverse. parse is anchored: no trailing text.
std::string to_string(const Action& action);
std::optional<Action> parse_action(std::string_view text);
std::string_view letters(ActionKind kind);  // "F", "SEND_B", ...
std::optional<ActionKind> parse_action_kind(std::string_view letters);
constexpr bool is_compute(ActionKind kind) { return kind <= ActionKind::backward_weight; }
constexpr bool is_send(ActionKind kind) {
  return kind == ActionKind::send_forward || kind == ActionKind::send_backward;
}
constexpr bool is_receive(ActionKind kind) {
  return kind == ActionKind::recv_forward || kind == ActionKind::recv_backward;
}
constexpr bool has_microbatch(ActionKind kind) { return kind <= ActionKind::recv_backward; }

// When weights change, and which ones a micro-batch sees (docs/schedules.md, "Asynchronous schedules").
enum class WeightUpdates : std::uint8_t {
  synchronous,    // once a step, after all of its micro-batches
  pipedream,      // each micro-batch's gradient at once; a backward uses the weights of its forward (weight stashing)
  vertical_sync,  // as pipedream, and every stage uses the version that the micro-batch met on stage 0
  two_buffered,   // PipeDream-2BW: once a group of micro-batches, delayed by one group; two versions
};

// A stage is usually on one rank. In bidirectional schedules it is on two, and each micro-batch takes one of them: the
// forward and backward of a stage and micro-batch are always on the same rank.
struct ComputeSchedule {
  std::string name;  // "gpipe", "1f1b", or "custom" when read from a file
  int stages = 0;
  int microbatches = 0;  // with token slices: micro-batches * slices, numbered micro-batch * slices + slice
  std::vector<std::vector<Action>> ranks;  // compute kinds only
  int slices = 1;  // of a sample's tokens: slice i attends to 0..i, so its backward runs before that of slice i-1
  bool forward_only = false;  // inference
  WeightUpdates updates = WeightUpdates::synchronous;
  int update_group = 1;  // asynchronous: micro-batches whose gradients make one update (PipeDream-2BW: at least P)
  bool operator==(const ComputeSchedule&) const = default;
};

struct LoweredSchedule {
  std::string name;
  int stages = 0;
  int microbatches = 0;
  std::vector<std::vector<Action>> ranks;
  bool operator==(const LoweredSchedule&) const = default;
};

// The ranks that run each stage. REQUIRES of all: a schedule that passed check().
class Placement {
 public:
  explicit Placement(const ComputeSchedule& schedule);
  // The ranks that have the stage, ascending: one, or two in bidirectional schedules.
  const std::vector<RankId>& ranks(StageId stage) const { return ranks_[static_cast<std::size_t>(stage.value)]; }
  bool is_shared(StageId stage) const { return ranks(stage).size() > 1; }
  bool is_bidirectional() const;
  bool on(StageId stage, RankId rank) const;
  RankId rank(StageId stage, MicrobatchId microbatch) const {
    const auto& route = routes_[static_cast<std::size_t>(stage.value)];
    return route.empty() ? ranks(stage).front() : route[static_cast<std::size_t>(microbatch.value)];
  }
  int stages() const { return static_cast<int>(ranks_.size()); }

 private:
  std::vector<std::vector<RankId>> ranks_;   // by stage
  std::vector<std::vector<RankId>> routes_;  // by stage: by micro-batch, where the stage is shared
};

// The first rank of each stage.
std::vector<RankId> placement(const ComputeSchedule& schedule);

// What one micro-batch costs on one stage, in any unit of time.
struct StageTimes {
  double forward = 1;
  double backward_input = 1;
  double backward_weight = 1;
};

// What a generator is asked for. The times are for those that plan with them (zb-1p, zb-2p, zb-v-auto, searched).
struct ScheduleShape {
  int ranks = 1;
  int stages_per_rank = 1;
  int microbatches = 1;           // before they are cut into slices
  int group = 0;                  // interleaved-1f1b: micro-batches that take turns on a stage; 0: as many as ranks.
                                  // pipedream-2bw: micro-batches an update; 0: all
  int slices = 1;                 // seq-1f1b, searched: token slices a micro-batch
  std::vector<StageTimes> times;  // by stage; empty: all 1
  double message = 0;             // from one rank to the next, in the same unit
  double memory_limit = 0;        // micro-batches a rank may keep, counted in stages of one rank; 0: the schedule's own
  bool both_directions = false;   // searched: a stage may be on two ranks, each with its weights
};

// A generator and what is known about it. To add a schedule: one file with the generator, one line in the table.
struct ScheduleKind {
  std::string_view name;     // as on the command line
  std::string_view summary;  // one line for --help
  ComputeSchedule (*generate)(const ScheduleShape&);
  // Why this shape cannot be generated; empty when it can.
  std::string (*refuse)(const ScheduleShape&);
};
const std::vector<ScheduleKind>& schedule_kinds();

// Throws bad_input for an unknown name (with the nearest known one), a refused shape, or more than 50 million actions.
ComputeSchedule make_schedule(std::string_view name, const ScheduleShape& shape);

// What the comm pass has to add beyond sends and receives.
struct LoweringOptions {
  bool data_parallel = false;  // add REDUCE_GRAD for each stage after its last weight gradient; also without it for
                               // a stage on two ranks
  bool tied_ends = false;      // add REDUCE_TIED for the first and last stage when they are on different ranks
};
// Where RECVs go.
enum class Receives {
  at_need,  // right before the computation that needs the message
  as_sent,  // in the order of the sends, as early as that asks: for transports that pair by order (NCCL, torch's
            // files), where a RECV posts the receive and the computation waits for it
};

// Adds communication: SEND right after the compute that produced the tensor (after the B of an overlapped pair), RECV
// before the compute that needs it, none between two stages of one rank; then the reductions and STEP of each stage,
// which inference does without.
// Throws bad_input naming rank and action when check() finds a fault.
LoweredSchedule lower(const ComputeSchedule& schedule, const LoweringOptions& options,
                      Receives receives = Receives::at_need);

}  // namespace stagecraft
