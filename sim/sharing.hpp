// Slices of one GPU share its memory bandwidth, cache and power: how far each gets while others compute.
//
// A computation on a slice takes a known time with any number of its neighbours busy, which profiles measure. While its
// neighbours come and go it progresses at the rate of the moment: with d(x) the time that it takes when a share x of
// the GPU's other multiprocessors computes, linear between measured points, progress goes on at 1 / d(x). Neighbours
// that do forwards count for less of their share than others, or more, as measured.
// docs/cost_model.md.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "models/plan.hpp"

namespace stagecraft {

// By worker: those on other slices of its GPU, each with its share of the multiprocessors that are not the worker's.
// A worker is a rank of a representative (folding.hpp): representative * ranks + rank. A replica that is represented
// computes when its representative does, so a worker may be its own neighbour. Empty where no two devices share a GPU.
struct Neighbour {
  int worker = 0;
  double share = 0;
};
using Neighbours = std::vector<std::vector<Neighbour>>;
// `devices` as Plan::devices; representative_of: by row of it, numbers from 0.
Neighbours neighbours_of(const Cluster& cluster, const std::vector<std::vector<DeviceId>>& devices,
                         std::span<const int> representative_of);
// The first row stands for all of them.
Neighbours neighbours_of(const Cluster& cluster, const std::vector<std::vector<DeviceId>>& devices);

// Seconds of F, B, I, W or STEP.
double duration(const ComputeTimes& times, ActionKind kind);

// A computation of a stage on a slice.
struct SharedWork {
  // Seconds by the share of busy neighbours, evenly spaced from 0 to 1.
  std::vector<double> points;
  bool is_forward = false;
  // How much of its share a neighbour counts that does a forward, and one that does something else. On average, while
  // they do what they do in a step, 1.
  double forward_weight = 1, other_weight = 1;
};
SharedWork shared_work(const StageCost& cost, ActionKind kind);

// Seconds at a share of busy neighbours; beyond 1 the last two points' line goes on if it rises. REQUIRES: a point,
// share >= 0.
double interpolate(std::span<const double> points, double share);

// What workers that share GPUs compute at the moment.
class SharedProgress {
 public:
  // `neighbours` is used, not owned.
  explicit SharedProgress(const Neighbours& neighbours);

  // Begins a computation. `work` must live until it ends.
  // REQUIRES of both: `now` does not go back; the worker does nothing.
  void start(int worker, double now, const SharedWork& work);
  // REQUIRES: the worker computes.
  void finish(int worker, double now);

  // Which computation ends next if none starts before, and when; the lowest worker where several do.
  struct End {
    int worker = 0;
    double time = 0;
  };
  std::optional<End> next() const;

 private:
  struct Computation {
    const SharedWork* work = nullptr;  // none
    double since = 0;                  // when `left` was true
    double left = 0;                   // share of the computation that is not done
    double seconds = 0;                // of all of it, at the rate of the moment
    double end() const { return since + left * seconds; }
  };
  void set_rate(int worker, double now);
  // Its neighbours go on at another rate.
  void disturb(int worker, double now);

  const Neighbours& neighbours_;
  std::vector<std::vector<int>> disturbed_;  // by worker: those that it is a neighbour of
  std::vector<Computation> computations_;    // by worker
  std::vector<int> busy_;                    // workers that compute, ascending
};

}  // namespace stagecraft
