#include "models/cost/schedule_forms.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "models/schedule/schedule.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

using enum PipelineSchedule;

}  // namespace

bool is_timed(PipelineSchedule schedule) { return schedule >= hanayo; }

double bubble_time(PipelineSchedule schedule, std::int32_t ranks, std::int32_t stages_per_rank,
                   std::int32_t microbatches, const StageWork& stage) {
  if (ranks == 1) return 0;
  const double others = ranks - 1;
  const double f = stage.forward;
  const double i = stage.backward_input;
  const double w = stage.backward_weight;
  const auto positive = [](double time) { return std::max(0.0, time); };
  switch (schedule) {
    case gpipe:
    case one_f_one_b:
    case eager_one_f_one_b:
      return others * (f + i + w);
    case interleaved_one_f_one_b:
    case looped_bfs:
      // With fewer micro-batches than ranks each pass but the last waits for the first micro-batch to come round.
      return (others + (stages_per_rank - 1.0) * positive(ranks - microbatches)) * (f + i + w);
    case zb_h1:
    case zb_1p:
    case interleaved_zero_bubble:
      return others * positive(f + i - std::min({w, f, i}));
    case zb_h2:
      return others * positive(f + i - 2 * w);
    case zb_2p:
      // The first rank waits for its first micro-batch to come back, and has others to start meanwhile.
      return positive(others * i + ranks * f - std::min(microbatches, 2 * ranks) * f);
    case zb_v:
      return positive(others * i - ranks * f);
    case v_half:
      return positive(3.0 * ranks - (ranks % 2 == 0 ? 7 : 4)) / 3 * (f + i + w);
    case v_min:
      return (4.0 * ranks - (ranks % 3 == 0 ? 7 : 5)) / 3 * (f + i + w);
    case chimera:
      // A unit of P micro-batches waits for the longer backward of the one before it.
      return (ranks - 2.0) * (i + w + (std::ceil(static_cast<double>(microbatches) / ranks) - 1) * positive(i + w - f));
    case dualpipe:
      return (ranks / 2.0 - 1) * positive(f + 2 * (i + w) - 3 * w);
    case dualpipe_v:
      return others * positive(f + 2 * (i + w) - 3 * w);
    default:  // timed
      return 0;
  }
}

double stages_in_flight(PipelineSchedule schedule, std::int32_t ranks, std::int32_t stages_per_rank,
                        std::int32_t microbatches, std::int32_t rank) {
  const double p = ranks;
  const double v = stages_per_rank;
  const double all = microbatches * v;
  const double behind = ranks - rank;  // this rank and those after it
  const auto at_most_all = [all](double stages) { return std::min(all, stages); };
  switch (schedule) {
    case gpipe:
    case looped_bfs:
      return all;
    case one_f_one_b:
      return at_most_all(behind);
    case eager_one_f_one_b:
      return at_most_all(2 * behind - 1);
    case interleaved_one_f_one_b:  // Narayanan et al. 2021: (V-1) P + 2 (P-1-r) + 1
      return ranks == 1 ? v : at_most_all((v - 1) * p + 2 * behind - 1);
    case zb_h1:
    case zb_1p:
      return at_most_all(p);
    case zb_h2:
      return at_most_all(2 * p - 1);
    case zb_2p:
      return at_most_all(2 * p);
    case interleaved_zero_bubble:
      return at_most_all(p * v);
    case zb_v:
      return at_most_all(2 * p);
    case v_half:
      return at_most_all(2 * std::floor((p + 2) / 2));
    case v_min:
      return at_most_all(2 * std::floor((p + 4) / 3));
    case chimera:
      return at_most_all(p / 2 + 1 + std::min(rank, ranks - 1 - rank));
    case dualpipe:
      return at_most_all(p + 1);
    case dualpipe_v:
      return at_most_all(2 * p + 1);
    default:  // timed
      return all;
  }
}

double messages_in_latency(std::int32_t ranks, std::int32_t stages_per_rank) {
  return ranks == 1 ? 0 : 2.0 * (static_cast<double>(ranks) * stages_per_rank - 1);
}

std::int32_t stages_per_rank_of(PipelineSchedule schedule) {
  switch (schedule) {
    case interleaved_one_f_one_b:
    case looped_bfs:
    case interleaved_zero_bubble:
    case hanayo:
    case interleaved_one_f_one_b_torch:
    case searched:
      return 0;
    case bitpipe:
    case zb_v_auto:
    case zb_v:
    case v_half:
    case v_min:
    case dualpipe_v:
      return 2;
    default:
      return 1;
  }
}

bool turns_back(PipelineSchedule schedule) {
  constexpr std::array back{zb_v, v_half, v_min, dualpipe_v, hanayo, bitpipe, zb_v_auto};
  return std::find(back.begin(), back.end(), schedule) != back.end();
}

std::int32_t weight_copies(PipelineSchedule schedule) {
  return schedule == chimera || schedule == dualpipe || schedule == bitpipe ? 2 : 1;
}

bool splits_backward(PipelineSchedule schedule) {
  switch (schedule) {
    case zb_h1:
    case zb_h2:
    case interleaved_zero_bubble:
    case zb_1p:
    case zb_2p:
    case zb_v:
    case v_half:
    case v_min:
    case dualpipe:
    case dualpipe_v:
    case zb_v_auto:
    case searched:
      return true;
    default:
      return false;
  }
}

std::string refuse_schedule(PipelineSchedule schedule, std::int32_t ranks, std::int32_t stages_per_rank,
                            std::int32_t microbatches) {
  const std::int32_t wanted = stages_per_rank_of(schedule);
  if (wanted > 0 && stages_per_rank != wanted) {
    return fmt::format("{} has {} a rank, not {}", name(schedule), counted(wanted, "stage"), stages_per_rank);
  }
  if (is_timed(schedule)) {
    if (ranks < 2) return fmt::format("{} needs at least 2 ranks", name(schedule));
    // Forwards, input and weight gradients.
    if (std::int64_t{3} * ranks * stages_per_rank * microbatches > most_timed_actions) {
      return fmt::format("{} is timed action by action, here more than {} of them", name(schedule),
                         with_thousands(most_timed_actions));
    }
    const auto& kinds = schedule_kinds();
    const auto kind = std::find_if(kinds.begin(), kinds.end(), [&](const auto& k) { return k.name == name(schedule); });
    const std::string refusal = kind->refuse({ranks, stages_per_rank, microbatches});
    return refusal.empty() ? "" : fmt::format("{} {}", name(schedule), refusal);
  }
  if (wanted == 0 && (stages_per_rank < 2 || ranks < 2)) {
    return fmt::format("{} needs at least 2 stages a rank and 2 ranks", name(schedule));
  }
  if (schedule == interleaved_one_f_one_b || schedule == interleaved_zero_bubble) {
    if (microbatches % ranks != 0) {
      return fmt::format("{} takes a multiple of {} micro-batches, the ranks, not {}", name(schedule), ranks,
                         microbatches);
    }
  }
  if ((schedule == chimera || schedule == dualpipe) && (ranks % 2 != 0 || microbatches % 2 != 0)) {
    return fmt::format("{} needs an even number of ranks and of micro-batches", name(schedule));
  }
  if ((schedule == dualpipe || schedule == dualpipe_v) && microbatches < 2 * ranks) {
    return fmt::format("{} needs twice as many micro-batches as ranks", name(schedule));
  }
  if (wanted == 2 && ranks < 2) return fmt::format("{} needs at least 2 ranks", name(schedule));
  return {};
}

}  // namespace stagecraft
