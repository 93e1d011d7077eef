#include "planner/layout_search.hpp"

#include <algorithm>
#include <array>

#include "planner/in_parallel.hpp"
#include "planner/width_bounds.hpp"
#include "planner/width_search.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t batch_size = 64;  // widths whose search begins with the same thresholds

LayoutResult finish(const FoundLayouts& found, const LayoutSearchOptions& options) {
  LayoutResult result;
  result.best = found.ranking.best();
  result.front = found.front.points();
  result.counts = found.counts;
  for (const JudgedLayout& miss : found.misses.best()) {
    if (result.best.empty() ||
        score_of(options.objective, miss).first < score_of(options.objective, result.best.front()).first) {
      result.near_misses.push_back(miss);
    }
  }
  return result;
}

struct WidthTask {
  std::size_t widths = 0;  // position in LayoutSpace::widths()
  double time = 0;         // lower bound
};

// Most promising first.
std::vector<WidthTask> tasks_of(const LayoutSpace& space, LayoutObjective objective) {
  WidthBounds bounds(space);
  std::vector<WidthTask> tasks;
  for (std::size_t i = 0; i < space.widths().size(); ++i) {
    const Widths& widths = space.widths()[i];
    double time = bounds.time(widths);
    if (objective == LayoutObjective::cost) time *= static_cast<double>(widths.devices());
    tasks.push_back({i, time});
  }
  std::stable_sort(tasks.begin(), tasks.end(), [](const WidthTask& a, const WidthTask& b) { return a.time < b.time; });
  return tasks;
}

// Whether something below the widths can still get into the front.
bool reaches_front(const FoundLayouts& found, double time, const std::vector<ResidenceBound>& bounds) {
  return std::any_of(bounds.begin(), bounds.end(), [&](const ResidenceBound& bound) {
    return !found.front.covers(time + bound.optimizer, bound.memory);
  });
}

}  // namespace

LayoutCounts& LayoutCounts::operator+=(const LayoutCounts& other) {
  points += other.points;
  judged += other.judged;
  slower_widths += other.slower_widths;
  slower += other.slower;
  too_large += other.too_large;
  dominated += other.dominated;
  return *this;
}

LayoutResult search_layouts(const LayoutSpace& space, const LayoutSearchOptions& options) {
  FoundLayouts found(options);
  const std::vector<WidthTask> tasks = tasks_of(space, options.objective);
  const WidthBounds bounds(space);
  std::vector<std::size_t> hopeful;
  for (std::size_t at = 0; at < tasks.size();) {
    // The thresholds of the batches before decide what this batch looks at, whatever the threads do.
    hopeful.clear();
    for (; at < tasks.size() && hopeful.size() < batch_size; ++at) {
      const auto [i, time] = tasks[at];
      const bool can_rank = options.objective == LayoutObjective::memory || time <= found.ranking.threshold().first;
      if (can_rank || (options.front && reaches_front(found, time, bounds.residences(space.widths()[i])))) {
        hopeful.push_back(i);
      } else {
        found.counts.points += space.points_by_widths()[i];
        found.counts.slower_widths += space.points_by_widths()[i];
      }
    }
    std::vector<FoundLayouts> results(hopeful.size(), FoundLayouts(options));
    in_parallel(options.threads, hopeful.size(), [&](std::size_t i) {
      const Widths& widths = space.widths()[hopeful[i]];
      results[i] = WidthSearch(space, options, found)
                       .run(widths, bounds.residences(widths), space.points_by_widths()[hopeful[i]]);
    });
    for (const FoundLayouts& result : results) found.merge(result, options.front);
  }
  return finish(found, options);
}

LayoutResult judge_all_layouts(const LayoutSpace& space, const LayoutSearchOptions& options) {
  FoundLayouts found(options);
  const StepModel& model = space.model();
  for (const Widths& widths : space.widths()) {
    for (const std::int32_t microbatch : space.microbatches_of(widths)) {
      for (const bool sequence : space.sequence_parallel(widths)) {
        for (const DimensionOrder& order : space.orders(widths)) {
          ParallelLayout layout = space.base(widths, microbatch, sequence, order);
          for (const PipelineShape& shape : space.shapes(layout.pipeline, layout.microbatches)) {
            LayoutSpace::apply(shape, layout);
            for (const Residence& residence : space.residences(widths)) {
              LayoutSpace::apply(residence, layout);
              for (const Recomputation& recomputation : space.recomputations(
                       widths, space.most_layers(layout.pipeline, shape), residence.offload_activations)) {
                LayoutSpace::apply(recomputation, layout);
                for (const ParallelLayout& each : space.overlaps(layout)) {
                  const JudgedLayout judged{each, model.estimate(each)};
                  ++found.counts.judged;
                  if (!judged.estimate.fits) continue;
                  found.ranking.add(judged);
                  if (options.front) found.front.add(judged);
                }
              }
            }
          }
        }
      }
    }
  }
  found.counts.points = found.counts.judged;
  return finish(found, options);
}

JudgedLayout smallest_layout(const LayoutSpace& space) {
  Machine roomy = space.model().machine();
  roomy.device.memory = Bytes(1e30);
  const StepModel model(space.model().job(), roomy);
  return search_layouts(LayoutSpace(model, space.choices()), {.objective = LayoutObjective::memory, .keep = 1})
      .best.front();
}

}  // namespace stagecraft
