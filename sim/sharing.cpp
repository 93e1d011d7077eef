#include "sim/sharing.hpp"

#include <algorithm>
#include <cassert>
#include <map>

namespace stagecraft {
namespace {

struct OnGpu {
  int worker = 0;
  DeviceId device;
  int multiprocessors = 0;
};

std::size_t at(int value) { return static_cast<std::size_t>(value); }

}  // namespace

Neighbours neighbours_of(const Cluster& cluster, const std::vector<std::vector<DeviceId>>& devices,
                         std::span<const int> representative_of) {
  const bool sliced = std::any_of(cluster.device_types.begin(), cluster.device_types.end(),
                                  [](const DeviceType& type) { return type.is_slice(); });
  if (!sliced || devices.empty()) return {};
  const std::vector<int> gpus = gpus_of(cluster);
  std::map<int, int> cut;  // by GPU: multiprocessors of all its slices, used or not
  for (std::size_t d = 0; d < gpus.size(); ++d) {
    cut[gpus[d]] += cluster.type_of(DeviceId{static_cast<std::int32_t>(d)}).multiprocessors;
  }
  const int ranks = static_cast<int>(devices.front().size());
  std::map<int, std::vector<OnGpu>> used;  // by GPU
  for (std::size_t row = 0; row < devices.size(); ++row) {
    for (int rank = 0; rank < ranks; ++rank) {
      const DeviceId device = devices[row][at(rank)];
      used[gpus[at(device.value)]].push_back(
          {representative_of[row] * ranks + rank, device, cluster.type_of(device).multiprocessors});
    }
  }
  const int representatives = *std::max_element(representative_of.begin(), representative_of.end()) + 1;
  Neighbours neighbours(at(representatives * ranks));
  std::vector<bool> done(neighbours.size(), false);
  bool any = false;
  for (std::size_t row = 0; row < devices.size(); ++row) {
    for (int rank = 0; rank < ranks; ++rank) {
      // The first row that is represented speaks for all.
      const int worker = representative_of[row] * ranks + rank;
      if (done[at(worker)]) continue;
      done[at(worker)] = true;
      const DeviceId device = devices[row][at(rank)];
      const int gpu = gpus[at(device.value)];
      const int others = cut[gpu] - cluster.type_of(device).multiprocessors;
      for (const OnGpu& other : used[gpu]) {
        if (other.device == device) continue;
        neighbours[at(worker)].push_back({other.worker, static_cast<double>(other.multiprocessors) / others});
        any = true;
      }
    }
  }
  return any ? neighbours : Neighbours{};
}

Neighbours neighbours_of(const Cluster& cluster, const std::vector<std::vector<DeviceId>>& devices) {
  return neighbours_of(cluster, devices, std::vector<int>(devices.size(), 0));
}

double duration(const ComputeTimes& times, ActionKind kind) {
  switch (kind) {
    case ActionKind::forward:
      return times.forward.value();
    case ActionKind::backward:
      return times.backward().value();
    case ActionKind::backward_input:
      return times.backward_input.value();
    case ActionKind::backward_weight:
      return times.backward_weight.value();
    default:
      return times.optimizer.value();
  }
}

SharedWork shared_work(const StageCost& cost, ActionKind kind) {
  SharedWork work;
  work.is_forward = kind == ActionKind::forward;
  for (const ComputeTimes& times : cost.beside) work.points.push_back(duration(times, kind));
  if (work.points.empty()) work.points.push_back(duration(cost.times(), kind));
  const double alone = work.points.front(), beside_all = work.points.back();
  if (!cost.beside_forwards || kind == ActionKind::optimizer_step || beside_all <= 1.001 * alone) return work;
  constexpr double most = 2;
  work.forward_weight = std::clamp((duration(*cost.beside_forwards, kind) - alone) / (beside_all - alone), 0.0, most);
  // So that neighbours of which as many do forwards as in a step count for what they did when they were measured.
  const double forwards = cost.forward / (cost.forward + cost.backward());
  if (forwards < 1) work.other_weight = std::max((1 - forwards * work.forward_weight) / (1 - forwards), 0.0);
  return work;
}

double interpolate(std::span<const double> points, double share) {
  assert(!points.empty());
  if (points.size() == 1) return points.front();
  if (share == 1) return points.back();  // exactly, without rounding
  const double position = share * static_cast<double>(points.size() - 1);
  const std::size_t below = std::min(static_cast<std::size_t>(position), points.size() - 2);
  const double value = points[below] + (position - static_cast<double>(below)) * (points[below + 1] - points[below]);
  return share < 1 ? value : std::max(value, points.back());
}

SharedProgress::SharedProgress(const Neighbours& neighbours)
    : neighbours_(neighbours), disturbed_(neighbours.size()), computations_(neighbours.size()) {
  for (std::size_t worker = 0; worker < neighbours.size(); ++worker) {
    for (const Neighbour& neighbour : neighbours[worker]) {
      disturbed_[at(neighbour.worker)].push_back(static_cast<int>(worker));
    }
  }
}

void SharedProgress::set_rate(int worker, double now) {
  Computation& computation = computations_[at(worker)];
  const SharedWork& work = *computation.work;
  double share = 0;
  for (const Neighbour& neighbour : neighbours_[at(worker)]) {
    const SharedWork* const other = computations_[at(neighbour.worker)].work;
    if (other == nullptr) continue;
    share += neighbour.share * (other->is_forward ? work.forward_weight : work.other_weight);
  }
  const double seconds = interpolate(work.points, share);
  if (seconds == computation.seconds) return;
  if (computation.seconds > 0) {
    computation.left = std::max(0.0, computation.left - (now - computation.since) / computation.seconds);
  }
  computation.since = now;
  computation.seconds = seconds;
}

void SharedProgress::disturb(int worker, double now) {
  for (const int other : disturbed_[at(worker)]) {
    if (computations_[at(other)].work != nullptr) set_rate(other, now);
  }
}

void SharedProgress::start(int worker, double now, const SharedWork& work) {
  Computation& computation = computations_[at(worker)];
  assert(computation.work == nullptr && !work.points.empty());
  computation = {&work, now, 1, 0};
  busy_.insert(std::lower_bound(busy_.begin(), busy_.end(), worker), worker);
  set_rate(worker, now);
  disturb(worker, now);
}

void SharedProgress::finish(int worker, double now) {
  assert(computations_[at(worker)].work != nullptr);
  computations_[at(worker)] = {};
  busy_.erase(std::lower_bound(busy_.begin(), busy_.end(), worker));
  disturb(worker, now);
}

std::optional<SharedProgress::End> SharedProgress::next() const {
  std::optional<End> first;
  for (const int worker : busy_) {
    const double end = computations_[at(worker)].end();
    if (!first || end < first->time) first = End{worker, end};
  }
  return first;
}

}  // namespace stagecraft
