// What each rank does, in order: the data that simulators and runtimes execute alike.
//
// Three types, one a pass:
//   ComputeSchedule   forwards and backwards only; what a generator (gpipe.hpp, one_f_one_b.hpp, ...) makes
//   LoweredSchedule   with sends, receives, gradient reductions and optimizer steps; what lower() makes
//   both checked by check() (checker.hpp), which proves that every rank can finish or says who cannot
//
// What executing a LoweredSchedule means, everywhere:
//   F B I W     occupy the rank, one after the other, in list order.
//   SEND_*      starts when the rank reaches it and leaves the rank free; the message arrives after the path's
//               latency plus bytes / bandwidth.
//   RECV_*      the rank waits until the message has arrived.
//   REDUCE_*    a collective: starts when every participant has reached it, leaves the rank free; STEP waits for it.
//               REDUCE_TIED sums the gradient of a table shared by the first and the last stage; REDUCE_GRAD sums a
//               stage's gradients over the data-parallel replicas, after the REDUCE_TIED of that stage.
//   STEP        the optimizer step of a stage; occupies the rank, after the reductions of that stage.
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
  constexpr auto operator<=>(const Action&) const = default;
};

// "2F0", "1SEND_B3", "0REDUCE_GRAD"; print and parse are inverse. parse is anchored: no trailing text.
std::string to_string(const Action& action);
std::optional<Action> parse_action(std::string_view text);
std::string_view letters(ActionKind kind);  // "F", "SEND_B", ...
std::optional<ActionKind> parse_action_kind(std::string_view letters);
constexpr bool is_compute(ActionKind kind) { return kind <= ActionKind::backward_weight; }
constexpr bool has_microbatch(ActionKind kind) { return kind <= ActionKind::recv_backward; }

struct ComputeSchedule {
  std::string name;  // "gpipe", "1f1b", or "custom" when read from a file
  int stages = 0;
  int microbatches = 0;
  std::vector<std::vector<Action>> ranks;  // compute kinds only
  bool operator==(const ComputeSchedule&) const = default;
};

struct LoweredSchedule {
  std::string name;
  int stages = 0;
  int microbatches = 0;
  std::vector<std::vector<Action>> ranks;
  bool operator==(const LoweredSchedule&) const = default;
};

// The rank that runs each stage, by position. REQUIRES: a schedule that passed check().
std::vector<RankId> placement(const ComputeSchedule& schedule);

// The shape that a generator is asked for.
struct ScheduleShape {
  int ranks = 1;
  int stages_per_rank = 1;
  int microbatches = 1;
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
  bool data_parallel = false;  // add REDUCE_GRAD for each stage after its last weight gradient
  bool tied_ends = false;      // add REDUCE_TIED for the first and last stage when they are on different ranks
};

// Adds communication: SEND right after the compute that produced the tensor, RECV right before the compute that needs
// it, none between two stages of one rank; then the reductions and STEP of each stage.
// Throws bad_input naming rank and action when check() finds a fault.
LoweredSchedule lower(const ComputeSchedule& schedule, const LoweringOptions& options);

}  // namespace stagecraft
