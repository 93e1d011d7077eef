#include "models/schedule/schedule.hpp"

#include <algorithm>
#include <cmath>

#include "models/error.hpp"
#include "models/schedule/bitpipe.hpp"
#include "models/schedule/chimera.hpp"
#include "models/schedule/controllable_memory.hpp"
#include "models/schedule/dualpipe.hpp"
#include "models/schedule/eager_one_f_one_b.hpp"
#include "models/schedule/gpipe.hpp"
#include "models/schedule/hanayo.hpp"
#include "models/schedule/inference.hpp"
#include "models/schedule/interleaved_one_f_one_b.hpp"
#include "models/schedule/interleaved_zero_bubble.hpp"
#include "models/schedule/looped_bfs.hpp"
#include "models/schedule/one_f_one_b.hpp"
#include "models/schedule/pipedream.hpp"
#include "models/schedule/searched.hpp"
#include "models/schedule/seq_one_f_one_b.hpp"
#include "models/schedule/zb_h1.hpp"
#include "models/schedule/zb_h2.hpp"
#include "models/schedule/zb_v.hpp"
#include "models/schedule/zero_bubble_auto.hpp"
#include "models/schedule/zero_bubble_v_auto.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

// 2 GB of lowered actions; a shape beyond is a slip of the keyboard.
constexpr std::int64_t max_computes = 50'000'000;

std::string refuse_any(const ScheduleShape& shape) {
  if (shape.ranks < 1) return fmt::format("needs at least one rank, got {}", shape.ranks);
  if (shape.stages_per_rank < 1) return fmt::format("needs at least one stage a rank, got {}", shape.stages_per_rank);
  if (shape.microbatches < 1) return fmt::format("needs at least one micro-batch, got {}", shape.microbatches);
  for (const StageTimes& time : shape.times) {
    for (const double value : {time.forward, time.backward_input, time.backward_weight}) {
      if (!std::isfinite(value) || value < 0) return fmt::format("needs finite times of at least 0, got {}", value);
    }
  }
  if (!std::isfinite(shape.message) || shape.message < 0) {
    return fmt::format("needs a finite message time of at least 0, got {}", shape.message);
  }
  if (std::isnan(shape.memory_limit)) return "needs a memory limit, got nan";
  const double microbatches = static_cast<double>(shape.microbatches) * std::max(1, shape.slices);
  const double computes = 2.0 * shape.ranks * shape.stages_per_rank * microbatches;
  if (computes > static_cast<double>(max_computes)) {
    return fmt::format(
        "{} with {} each and {}{} are {:.3g} actions; at most {} are accepted", counted(shape.ranks, "rank"),
        counted(shape.stages_per_rank, "stage"), counted(shape.microbatches, "micro-batch"),
        shape.slices > 1 ? fmt::format(" of {} slices", shape.slices) : "", computes, with_thousands(max_computes));
  }
  const std::size_t stages = static_cast<std::size_t>(shape.ranks) * static_cast<std::size_t>(shape.stages_per_rank);
  if (!shape.times.empty() && shape.times.size() != stages) {
    return fmt::format("needs the times of {}, got {}", counted(static_cast<long long>(stages), "stage"),
                       shape.times.size());
  }
  return "";
}

}  // namespace

const std::vector<ScheduleKind>& schedule_kinds() {
  static const std::vector<ScheduleKind> kinds{
      {"gpipe", "all forwards, then all backwards; keeps every micro-batch in flight", generate_gpipe, refuse_gpipe},
      {"1f1b", "one forward, one backward in turn; keeps at most as many micro-batches as ranks", generate_one_f_one_b,
       refuse_one_f_one_b},
      {"eager-1f1b", "1f1b with twice the forwards ahead, which hides the latency of messages",
       generate_eager_one_f_one_b, refuse_eager_one_f_one_b},
      {"interleaved-1f1b", "several stages a rank shorten the bubble; Megatron-LM's order, with --group",
       generate_interleaved_one_f_one_b, refuse_interleaved_one_f_one_b},
      {"interleaved-1f1b-torch", "the same in torch's order, which takes other numbers of micro-batches",
       generate_interleaved_one_f_one_b_torch, refuse_interleaved_one_f_one_b_torch},
      {"looped-bfs", "several stages a rank, breadth first; gathers sharded weights least often", generate_looped_bfs,
       refuse_looped_bfs},
      {"zb-h1", "zero bubble with the memory of 1f1b: weight gradients fill part of the bubble", generate_zb_h1,
       refuse_zb_h1},
      {"zb-h2", "zero bubble with twice the memory of 1f1b: no rank waits once it began", generate_zb_h2, refuse_zb_h2},
      {"interleaved-zero-bubble", "zb-h1 with several stages a rank; torch's order", generate_interleaved_zero_bubble,
       refuse_interleaved_zero_bubble},
      {"zb-v", "zero bubble with the memory of 1f1b: two stages a rank in a V; torch's order", generate_zb_v,
       refuse_zb_v},
      {"inference", "forwards alone", generate_inference, refuse_inference},
      {"pipedream", "1f1b without flush: a step after every micro-batch, stale weights", generate_pipedream,
       refuse_pipedream},
      {"pipedream-2bw", "1f1b without flush: weights one step stale, two versions", generate_pipedream_2bw,
       refuse_pipedream_2bw},
      {"zb-1p", "zero bubble planned from the stages' times, with the memory of 1f1b", generate_zb_1p,
       refuse_zero_bubble_auto},
      {"zb-2p", "zero bubble planned from the stages' times, with twice the memory of 1f1b", generate_zb_2p,
       refuse_zero_bubble_auto},
      {"zb-v-auto", "zb-v planned from the stages' times and a memory limit", generate_zb_v_auto, refuse_zb_v_auto},
      {"v-half", "two stages a rank in a V: half the memory of 1f1b", generate_v_half, refuse_controllable_memory},
      {"v-min", "two stages a rank in a V: a third of the memory of 1f1b", generate_v_min, refuse_controllable_memory},
      {"chimera", "two pipelines in opposite directions: half the bubble, twice the weights", generate_chimera,
       refuse_chimera},
      {"bitpipe", "two V-shaped pipelines in opposite directions: half the bubble of chimera", generate_bitpipe,
       refuse_bitpipe},
      {"dualpipe", "two pipelines in opposite directions, forward and backward in one block", generate_dualpipe,
       refuse_dualpipe},
      {"dualpipe-v", "dualpipe folded into a V, one copy of the weights", generate_dualpipe_v, refuse_dualpipe_v},
      {"hanayo", "down the ranks and up again in waves, one copy of the weights", generate_hanayo, refuse_hanayo},
      {"seq-1f1b", "1f1b on slices of the sequence: less bubble and memory for long ones", generate_seq_one_f_one_b,
       refuse_seq_one_f_one_b},
      {"searched", "the best of the others, improved by a search for these times, latency and memory",
       generate_searched, refuse_searched},
  };
  return kinds;
}

ComputeSchedule make_schedule(std::string_view name, const ScheduleShape& shape) {
  std::vector<std::string> names;
  for (const ScheduleKind& kind : schedule_kinds()) {
    names.emplace_back(kind.name);
    if (kind.name != name) continue;
    std::string refusal = refuse_any(shape);
    if (refusal.empty()) refusal = kind.refuse(shape);
    if (!refusal.empty()) throw bad_input("schedule '{}': {}", name, refusal);
    return kind.generate(shape);
  }
  throw bad_input("unknown schedule '{}'{}; known: {}", printable(name), did_you_mean(name, names), join(names));
}

Placement::Placement(const ComputeSchedule& schedule)
    : ranks_(static_cast<std::size_t>(schedule.stages)), routes_(ranks_.size()) {
  for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    const RankId id{static_cast<std::int32_t>(rank)};
    for (const Action& action : schedule.ranks[rank]) {
      auto& ranks = ranks_[static_cast<std::size_t>(action.stage.value)];
      if (ranks.empty() || ranks.back() != id) ranks.push_back(id);
    }
  }
  for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    for (const Action& action : schedule.ranks[rank]) {
      if (!is_shared(action.stage)) continue;
      auto& route = routes_[static_cast<std::size_t>(action.stage.value)];
      route.resize(static_cast<std::size_t>(schedule.microbatches));
      route[static_cast<std::size_t>(action.microbatch.value)] = RankId{static_cast<std::int32_t>(rank)};
    }
  }
}

bool Placement::is_bidirectional() const {
  return std::any_of(ranks_.begin(), ranks_.end(), [](const auto& ranks) { return ranks.size() > 1; });
}

bool Placement::on(StageId stage, RankId rank) const {
  const auto& all = ranks(stage);
  return std::find(all.begin(), all.end(), rank) != all.end();
}

std::vector<RankId> placement(const ComputeSchedule& schedule) {
  const Placement placement(schedule);
  std::vector<RankId> ranks;
  ranks.reserve(static_cast<std::size_t>(schedule.stages));
  for (std::int32_t s = 0; s < schedule.stages; ++s) ranks.push_back(placement.ranks(StageId{s}).front());
  return ranks;
}

}  // namespace stagecraft
