#include "models/schedule/lower_bound.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace stagecraft {
namespace {

// So many tasks that take so long.
struct Alike {
  double time;
  int count;
};

// The time of the `limit` longest.
double longest(std::vector<Alike> tasks, int limit) {
  std::sort(tasks.begin(), tasks.end(), [](const Alike& a, const Alike& b) { return a.time > b.time; });
  double sum = 0;
  for (const Alike& alike : tasks) {
    const int taken = std::min(limit, alike.count);
    sum += taken * alike.time;
    limit -= taken;
  }
  return sum;
}

class Bounds {
 public:
  explicit Bounds(const OrderProblem& problem) : problem_(problem), before_(problem.rank_of_place.size()) {
    behind_ = before_;
    for (int place = 0; place < problem.places(); ++place) {
      const int from = problem.source(place, ActionKind::forward);
      if (from >= 0) of(before_, place) = of(before_, from) + of_stage(from).forward + message(from, place);
    }
    for (int place = problem.places(); place-- > 0;) {
      const int from = problem.source(place, ActionKind::backward_input);
      of(behind_, place) = from < 0 ? of(before_, place) + of_stage(place).forward
                                    : of(behind_, from) + of_stage(from).backward_input + message(from, place);
    }
  }

  double largest() const {
    double bound = 0;
    for (int first = 0; first < problem_.places(); first += problem_.stages) {
      if (problem_.units(first) > 0)
        bound = std::max(bound, gradient_at(first) + way_out(first) + of_stage(first).backward_input);
    }
    for (int rank = 0; rank < problem_.ranks; ++rank) {
      const std::vector<int> places = places_of(rank);
      if (places.empty()) continue;
      bound = std::max({bound, one_rank(places), memory_over_time(places)});
      if (places.size() == 1) bound = std::max(bound, memory_cycles(places.front()));
    }
    return bound;
  }

 private:
  static double& of(std::vector<double>& table, int place) { return table[static_cast<std::size_t>(place)]; }
  static double of(const std::vector<double>& table, int place) { return table[static_cast<std::size_t>(place)]; }
  const StageTimes& of_stage(int place) const {
    return problem_.times[static_cast<std::size_t>(problem_.stage_of(place))];
  }
  double message(int from, int to) const { return problem_.message_between(from, to); }

  // Forwards and messages before that of the place.
  double start_of(int place) const { return of(before_, place); }
  // From the first forward's start to where the input gradient of the place can start.
  double gradient_at(int place) const { return of(behind_, place); }
  // From the end of an input gradient of the place to the end of its way's first weight gradient.
  double way_out(int place) const {
    const int first = place - problem_.stage_of(place);
    return gradient_at(first) + of_stage(first).backward_input - gradient_at(place) - of_stage(place).backward_input +
           of_stage(first).backward_weight;
  }

  // That units pass.
  std::vector<int> places_of(int rank) const {
    std::vector<int> places;
    for (int place = 0; place < problem_.places(); ++place) {
      if (problem_.rank_of(place) == rank && problem_.units(place) > 0) places.push_back(place);
    }
    return places;
  }
  template <typename Function>
  static double least(const std::vector<int>& places, const Function& value) {
    double least = std::numeric_limits<double>::infinity();
    for (const int place : places) least = std::min(least, value(place));
    return least;
  }
  double earliest_start(const std::vector<int>& places) const {
    return least(places, [&](int place) { return start_of(place); });
  }

  double one_rank(const std::vector<int>& places) const {
    std::vector<Alike> forwards, weights;
    double inputs = 0, all_forwards = 0, all_weights = 0;
    for (const int place : places) {
      const StageTimes& times = of_stage(place);
      const int units = problem_.units(place);
      forwards.push_back({times.forward, units});
      weights.push_back({times.backward_weight, units});
      all_forwards += units * times.forward;
      all_weights += units * times.backward_weight;
      inputs += units * times.backward_input;
    }
    const double before = longest(forwards, problem_.activation_limit);
    const double behind = longest(weights, problem_.activation_limit);
    const double first_gradient = least(places, [&](int place) { return gradient_at(place); });
    const double out = least(places, [&](int place) { return way_out(place); });
    return std::max(first_gradient, earliest_start(places) + before) + (all_forwards - before) + inputs +
           (all_weights - behind) + std::max(behind, out);
  }

  // How long a place keeps an activation at least, without its weight gradient.
  double there_and_back(int place) const {
    return gradient_at(place) - start_of(place) + of_stage(place).backward_input;
  }

  double memory_cycles(int place) const {
    const StageTimes& times = of_stage(place);
    const int last = problem_.units(place) - 1;
    const int cycles = last / problem_.activation_limit;
    return start_of(place) + cycles * (there_and_back(place) + times.backward_weight) +
           (last - cycles * problem_.activation_limit) * times.forward + there_and_back(place) +
           std::max(times.backward_weight, way_out(place));
  }

  double memory_over_time(const std::vector<int>& places) const {
    double kept = 0;
    for (const int place : places) {
      kept += problem_.units(place) * (there_and_back(place) + of_stage(place).backward_weight);
    }
    return earliest_start(places) + kept / problem_.activation_limit;
  }

  const OrderProblem& problem_;
  std::vector<double> before_;  // by place: forwards and messages from the start to its forward
  std::vector<double> behind_;  // by place: from the start to its input gradient, of a unit that waits for nothing
};

}  // namespace

double lower_bound(const OrderProblem& problem) { return Bounds(problem).largest(); }

}  // namespace stagecraft
