#include "planner/explain.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

namespace stagecraft {
namespace {

struct Term {
  const char* name;
  Seconds Breakdown::*seconds;
};

constexpr std::array<Term, 6> terms{{{"compute", &Breakdown::compute},
                                     {"imbalance", &Breakdown::imbalance},
                                     {"bubble", &Breakdown::bubble},
                                     {"communication", &Breakdown::communication},
                                     {"gradient reduction", &Breakdown::reduction},
                                     {"optimizer", &Breakdown::optimizer}}};

// The steps of two candidates, and what contention adds to their timelines: by the last word that both have got.
struct Steps {
  Steps(const Candidate& a, const Candidate& b)
      : confirmed(a.simgrid && b.simgrid),
        first((confirmed ? *a.simgrid : *a.timeline).value()),
        second((confirmed ? *b.simgrid : *b.timeline).value()),
        more_contention(confirmed ? (first - a.timeline->value()) - (second - b.timeline->value()) : 0) {}
  bool confirmed;
  double first, second;
  double more_contention;  // of the first
};

// Terms by how much worse the first is, worst first.
std::vector<std::pair<const char*, double>> handicaps(const Candidate& first, const Candidate& second) {
  std::vector<std::pair<const char*, double>> result;
  for (const Term& term : terms) {
    result.emplace_back(term.name, (first.breakdown.*term.seconds - second.breakdown.*term.seconds).value());
  }
  result.emplace_back("contention", Steps(first, second).more_contention);
  std::stable_sort(result.begin(), result.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  return result;
}

std::string named(const Candidate& candidate) {
  return fmt::format("{} on {}", to_string(candidate.layout), candidate.devices);
}

std::string percent(double share) { return fmt::format("{:.3g} %", 100 * share); }

}  // namespace

Breakdown break_down(Timeline& timeline, const StepCosts& costs) {
  const Seconds all = timeline.makespan(costs);
  StepCosts reduced = costs;
  for (StageCost& stage : reduced.stages) {
    stage.optimizer = Seconds(0);
    for (ComputeTimes& times : stage.beside) times.optimizer = Seconds(0);
  }
  const Seconds without_optimizer = timeline.makespan(reduced);
  reduced.reduce_grad.assign(reduced.reduce_grad.size(), Seconds(0));
  reduced.reduce_tied = Seconds(0);
  const Seconds without_reduction = timeline.makespan(reduced);
  for (Link& hop : reduced.hops) hop.latency = Seconds(0);
  for (StageCost& stage : reduced.stages) stage.boundary = Bytes(0);
  const Seconds without_messages = timeline.makespan(reduced);

  const std::vector<Seconds> work = timeline.busy();
  const Seconds total = std::accumulate(work.begin(), work.end(), Seconds(0));
  const Seconds mean = total / static_cast<double>(work.size());
  const Seconds busiest = *std::max_element(work.begin(), work.end());
  return {mean,
          busiest - mean,
          without_messages - busiest,
          without_reduction - without_messages,
          without_optimizer - without_reduction,
          all - without_optimizer};
}

double bubble_of(const Breakdown& breakdown) {
  const Seconds idle = breakdown.imbalance + breakdown.bubble + breakdown.communication;
  const Seconds span = breakdown.compute + idle;
  return span > Seconds(0) ? std::clamp(idle / span, 0.0, 1.0) : 0;
}

std::pair<double, double> score_of(const Candidate& candidate, LayoutObjective objective) {
  const double step = step_of(candidate).value(), memory = candidate.memory.share();
  const double rate = candidate.price > 0 ? candidate.price : candidate.devices_used;
  switch (objective) {
    case LayoutObjective::time:
      return {step, memory};
    case LayoutObjective::cost:
      return {rate * step, step};
    case LayoutObjective::memory:
      return {memory, step};
  }
  return {};
}

std::string why_worse(const Candidate& loser, const Candidate& winner, LayoutObjective objective) {
  if (objective == LayoutObjective::time) return why_slower(loser, winner);
  const Steps steps(loser, winner);
  const double more = score_of(loser, objective).first / score_of(winner, objective).first - 1;
  std::string text = "as good";
  if (objective == LayoutObjective::memory) {
    text = fmt::format("{} of a device's memory against {}", percent(loser.memory.share()),
                       percent(winner.memory.share()));
  } else if (more >= 5e-5) {
    text = fmt::format("dearer: +{}", percent(more));
  }
  return text + fmt::format(", a step that takes {:+.3g} %", 100 * (steps.first / steps.second - 1));
}

std::string why_slower(const Candidate& loser, const Candidate& winner) {
  const Steps steps(loser, winner);
  const double more = steps.first / steps.second - 1;
  std::string text = more < 5e-5 ? "as fast" : fmt::format("slower: +{}", percent(more));
  if (std::abs(loser.bubble - winner.bubble) >= 0.005) {
    text += fmt::format(", bubble {} against {}", percent(loser.bubble), percent(winner.bubble));
  }
  const auto [name, seconds] = handicaps(loser, winner).front();
  if (seconds > 0.001 * steps.second) text += fmt::format(", {} +{}", name, to_string(Seconds(seconds)));
  return text;
}

std::string why_not(const Shortage& shortage) {
  const double devices = shortage.devices;
  return fmt::format("out of memory on stage {} ({}): needs {}, has {}{}", shortage.stage.value, shortage.device,
                     to_string(shortage.needed / devices), to_string(shortage.available / devices),
                     shortage.devices > 1 ? " each" : "");
}

std::string why_best(const Candidate& winner, const Candidate* runner_up, LayoutObjective objective) {
  const Seconds step = winner.simgrid.value_or(*winner.timeline);
  std::string text = fmt::format("{}: {} a step, of which", named(winner), to_string(step));
  const char* separator = " ";
  const auto add = [&](const char* name, Seconds seconds) {
    if (seconds < 0.0005 * step) return;
    text += fmt::format("{}{} {} ({})", separator, name, to_string(seconds), percent(seconds / step));
    separator = ", ";
  };
  for (const Term& term : terms) add(term.name, winner.breakdown.*term.seconds);
  add("contention", step - *winner.timeline);
  if (runner_up == nullptr) return text;
  const Steps steps(*runner_up, winner);
  text += fmt::format("\nagainst the runner-up, {}: {} a step{}, {:+.3g} %;", named(*runner_up),
                      to_string(Seconds(steps.first)), winner.simgrid && !steps.confirmed ? " without contention" : "",
                      100 * (steps.first / steps.second - 1));
  if (objective != LayoutObjective::time) text += fmt::format(" {};", why_worse(*runner_up, winner, objective));
  std::string saved, paid;
  for (const auto& [name, seconds] : handicaps(*runner_up, winner)) {
    if (std::abs(seconds) < 0.0005 * steps.second) continue;
    std::string& list = seconds > 0 ? saved : paid;
    list += fmt::format("{}{} of {}", list.empty() ? "" : ", ", to_string(Seconds(std::abs(seconds))), name);
  }
  if (saved.empty() && paid.empty()) return text + " no difference that counts";
  if (!saved.empty()) text += " saves " + saved;
  if (!paid.empty()) text += (saved.empty() ? " costs " : ", costs ") + paid;
  return text;
}

void give_verdicts(SearchResult& result) {
  const Candidate& winner = result.ranked.front().candidate;
  for (RankedPlan& plan : result.ranked) {
    plan.candidate.verdict = &plan.candidate == &winner ? "best" : why_worse(plan.candidate, winner, result.objective);
  }
  for (Candidate& miss : result.near_misses) {
    miss.verdict = miss.shortage ? why_not(*miss.shortage) : why_worse(miss, winner, result.objective);
  }
  result.why = why_best(winner, result.ranked.size() > 1 ? &result.ranked[1].candidate : nullptr, result.objective);
  // Others may have been left out of the ranking.
  if (result.ranked.size() == 1 && result.counts.partitioned <= 1) result.why += "; no other layout is feasible";
}

}  // namespace stagecraft
