#include "models/schedule/lower_bound.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

namespace stagecraft {
namespace {

// The time of the `count` longest of M tasks a stage.
double longest_tasks(std::vector<double> times, int microbatches, int count) {
  std::sort(times.begin(), times.end(), std::greater<>());
  double sum = 0;
  for (const double time : times) {
    const int taken = std::min(count, microbatches);
    sum += taken * time;
    count -= taken;
  }
  return sum;
}

class Bounds {
 public:
  explicit Bounds(const OrderProblem& problem) : problem_(problem) {
    const std::size_t stages = problem.rank_of_stage.size();
    forward_before_.resize(stages + 1);
    input_behind_.resize(stages + 1);
    for (std::size_t s = 0; s < stages; ++s) {
      forward_before_[s + 1] = forward_before_[s] + problem.times[s].forward + message_behind(s);
    }
    for (std::size_t s = stages; s-- > 0;) {
      input_behind_[s] = input_behind_[s + 1] + problem.times[s].backward_input + message_behind(s);
    }
  }

  double largest() const {
    double bound = one_microbatch();
    for (int rank = 0; rank < problem_.ranks; ++rank) {
      const std::vector<std::size_t> stages = stages_of(rank);
      if (stages.empty()) continue;
      bound = std::max({bound, one_rank(stages), memory_over_time(stages)});
      if (stages.size() == 1) bound = std::max(bound, memory_cycles(stages.front()));
    }
    return bound;
  }

 private:
  // From stage s to the next one, either way; 0 behind the last.
  double message_behind(std::size_t s) const {
    return s + 1 == problem_.rank_of_stage.size()
               ? 0
               : problem_.message_between(static_cast<int>(s), static_cast<int>(s) + 1);
  }
  double first_weight() const { return problem_.times.front().backward_weight; }

  // Forwards and messages before stage s; the last entry of the table: all of them.
  double start_of(std::size_t s) const { return forward_before_[s]; }
  // From the first forward's start to where the input gradient of stage s can start.
  double gradient_at(std::size_t s) const { return forward_before_.back() + input_behind_[s + 1] + message_behind(s); }
  // From the end of an input gradient of stage s to the end of the first stage's weight gradient.
  double way_out(std::size_t s) const {
    return s == 0 ? first_weight() : input_behind_[0] - input_behind_[s] + first_weight();
  }

  std::vector<std::size_t> stages_of(int rank) const {
    std::vector<std::size_t> stages;
    for (std::size_t s = 0; s < problem_.rank_of_stage.size(); ++s) {
      if (problem_.rank_of_stage[s] == rank) stages.push_back(s);
    }
    return stages;
  }

  double one_microbatch() const { return forward_before_.back() + input_behind_[0] + first_weight(); }

  double one_rank(const std::vector<std::size_t>& stages) const {
    std::vector<double> forwards, weights;
    double inputs = 0, all_forwards = 0, all_weights = 0;
    for (const std::size_t s : stages) {
      const StageTimes& times = problem_.times[s];
      forwards.push_back(times.forward);
      weights.push_back(times.backward_weight);
      all_forwards += problem_.microbatches * times.forward;
      all_weights += problem_.microbatches * times.backward_weight;
      inputs += problem_.microbatches * times.backward_input;
    }
    const double before = longest_tasks(forwards, problem_.microbatches, problem_.activation_limit);
    const double behind = longest_tasks(weights, problem_.microbatches, problem_.activation_limit);
    return std::max(gradient_at(stages.back()), start_of(stages.front()) + before) + (all_forwards - before) + inputs +
           (all_weights - behind) + std::max(behind, way_out(stages.front()));
  }

  // How long a stage keeps an activation at least, without its weight gradient.
  double there_and_back(std::size_t s) const { return gradient_at(s) - start_of(s) + problem_.times[s].backward_input; }

  double memory_cycles(std::size_t s) const {
    const StageTimes& times = problem_.times[s];
    const int last = problem_.microbatches - 1;
    const int cycles = last / problem_.activation_limit;
    return start_of(s) + cycles * (there_and_back(s) + times.backward_weight) +
           (last - cycles * problem_.activation_limit) * times.forward + there_and_back(s) +
           std::max(times.backward_weight, way_out(s));
  }

  double memory_over_time(const std::vector<std::size_t>& stages) const {
    double kept = 0;
    for (const std::size_t s : stages) kept += there_and_back(s) + problem_.times[s].backward_weight;
    return start_of(stages.front()) + problem_.microbatches * kept / problem_.activation_limit;
  }

  const OrderProblem& problem_;
  std::vector<double> forward_before_;  // by stage: forwards and messages from the start to that stage's forward
  std::vector<double> input_behind_;    // by stage: input gradients of it and the stages behind, and messages there
};

}  // namespace

double lower_bound(const OrderProblem& problem) { return Bounds(problem).largest(); }

}  // namespace stagecraft
