#include "planner/layout_search.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <thread>
#include <tuple>

#include "models/cost/schedule_forms.hpp"
#include "models/error.hpp"
#include "planner/layout_ranking.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t batch_size = 64;  // widths whose search begins with the same thresholds
// Bounds are added up in another order than the step they bound: a cut needs this much room, relative.
constexpr double rounding = 1e-9;

double least(double bound) { return bound * (1 - rounding); }

// Seconds a micro-batch for one block: computation, and the communication inside it.
double computation(const LayerShard& block) { return block.forward + block.backward_input + block.backward_weight; }
double inner_communication(const LayerShard& block) {
  return block.tensor_forward + block.tensor_backward + block.context_forward + block.context_backward +
         block.expert_forward + block.expert_backward;
}

// Bytes that no schedule, end stages, residence or recomputation need less of: of a middle rank with one micro-batch in
// flight, everything recomputed, sharded and offloaded.
double least_memory(const StepModel& model, ParallelLayout layout, const Shard& shard) {
  layout.microbatches = 1;
  layout.schedule = PipelineSchedule::one_f_one_b;
  layout.virtual_stages = 1;
  layout.first_stage_layers = layout.last_stage_layers = 0;
  layout.recompute = Recompute::full;
  layout.recomputed_layers = all_layers;
  layout.zero = static_cast<std::uint8_t>(layout.pipeline > 1 ? 1 : 3);
  layout.offload_optimizer = layout.offload_activations = true;
  // End stages may be shorter than even ones, and then the others are longer: the shortest that a rank can be is the
  // mean, rounded down.
  StageMemory memory = model.memory(layout, shard, layout.pipeline / 2);
  const double share = static_cast<double>(model.job().network.layers / layout.pipeline) /
                       static_cast<double>(model.layers_of(layout, layout.pipeline / 2));
  memory.weights *= share;
  memory.gradients *= share;
  memory.optimizer_state *= share;
  memory.activations *= share;
  return least(memory.total());
}

// The part of a step that ZeRO and offloading leave as it is; recomputation and offloading only add to it.
double time_anywhere(const StepTerms& terms) {
  return terms.compute + terms.recompute + terms.bubble + terms.tensor + terms.pipeline + terms.context + terms.expert;
}

// What has been found so far; a copy is what the widths of a batch begin with.
struct Found {
  Found(const LayoutSearchOptions& options)
      : ranking(options.objective, options.keep), misses(LayoutObjective::memory, options.near_misses) {}
  LayoutRanking ranking;
  LayoutRanking misses;  // too large, whatever is recomputed
  LayoutFront front;
  LayoutCounts counts;
};

// Lower bounds of what lies below widths, before any layout is judged.
class WidthBounds {
 public:
  explicit WidthBounds(const LayoutSpace& space) : space_(space) {}

  // Seconds.
  double time(const Widths& widths) {
    const StepModel& model = space_.model();
    const double samples = static_cast<double>(model.job().global_batch) / widths.data;
    const double layers = static_cast<double>(model.job().network.layers) / widths.pipeline;
    return least(samples * layers * sample_time(widths));
  }

  // Bytes, with the smallest micro-batch.
  double memory(const Widths& widths) const {
    const auto flags = space_.sequence_parallel(widths);
    const bool sequence = std::find(flags.begin(), flags.end(), true) != flags.end();
    const ParallelLayout layout = space_.base(widths, space_.microbatches_of(widths).front(), sequence, megatron_order);
    return least_memory(space_.model(), layout, space_.model().shard(layout));
  }

 private:
  // Of one block for one sample, with the micro-batch and the place on the machine that suit it best.
  double sample_time(const Widths& widths) {
    const auto [entry, is_new] = sample_times_.try_emplace({widths.tensor, widths.context, widths.expert});
    if (!is_new) return entry->second;
    double best = std::numeric_limits<double>::infinity();
    for (const std::int32_t microbatch : all_microbatches()) {
      for (const bool sequence : space_.sequence_parallel(widths)) {
        Widths alone = widths;
        alone.data = alone.pipeline = 1;
        ParallelLayout layout = space_.base(alone, microbatch, sequence, megatron_order);
        space_.overlap_all(layout);
        const LayerShard block = space_.model().shard(layout).block;
        const double time = computation(block) + block.tensor_forward + block.tensor_backward;
        best = std::min(best, time / microbatch);
      }
    }
    return entry->second = best;
  }

  const std::vector<std::int32_t>& all_microbatches() {
    if (microbatches_.empty()) {
      for (const Widths& widths : space_.widths()) {
        const auto sizes = space_.microbatches_of(widths);
        microbatches_.insert(microbatches_.end(), sizes.begin(), sizes.end());
      }
      std::sort(microbatches_.begin(), microbatches_.end());
      microbatches_.erase(std::unique(microbatches_.begin(), microbatches_.end()), microbatches_.end());
    }
    return microbatches_;
  }

  const LayoutSpace& space_;
  std::map<std::tuple<std::int32_t, std::int32_t, std::int32_t>, double> sample_times_;
  std::vector<std::int32_t> microbatches_;
};

// Searches everything below one setting of the widths.
class WidthSearch {
 public:
  WidthSearch(const LayoutSpace& space, const LayoutSearchOptions& options, const Found& known)
      : space_(space), model_(space.model()), options_(options), found_(known) {
    found_.counts = {};
  }

  Found run(const Widths& widths, double memory, std::int64_t points) {
    if (memory > model_.machine().device.memory.value()) {
      found_.counts.points += points;
      found_.counts.too_large += points;
      return std::move(found_);
    }
    widths_ = &widths;
    residences_ = space_.residences(widths);
    for (const std::int32_t microbatch : space_.microbatches_of(widths)) {
      const std::int64_t below = space_.points(widths, microbatch);
      for (const bool sequence : space_.sequence_parallel(widths)) {
        for (const DimensionOrder& order : space_.orders(widths)) {
          found_.counts.points += below;
          place(space_.base(widths, microbatch, sequence, order), below);
        }
      }
    }
    return std::move(found_);
  }

 private:
  // Whether nothing within these bounds can get into the result.
  bool is_hopeless(const ParallelLayout& layout, double time, double memory) const {
    // Rounding matters near the threshold only.
    constexpr double near = 1e-10;
    if (options_.objective == LayoutObjective::time && !options_.front) {
      const double last = found_.ranking.threshold().first;
      if (time > last * (1 + near)) return true;
      if (time < last * (1 - near)) return false;
    }
    const LayoutScore bound = score_of(options_.objective, layout, time, memory);
    return bound > found_.ranking.threshold() && (!options_.front || found_.front.covers(time, memory));
  }

  void place(ParallelLayout layout, std::int64_t below) {
    space_.overlap_all(layout);
    const Shard shard = model_.shard(layout);
    const double layers = static_cast<double>(model_.job().network.layers) / layout.pipeline;
    const double busy = layout.microbatches * layers * (computation(shard.block) + inner_communication(shard.block));
    const double memory =
        options_.front || options_.objective == LayoutObjective::memory ? least_memory(model_, layout, shard) : 0;
    if (is_hopeless(layout, least(busy), memory)) {
      found_.counts.slower += below;
      return;
    }
    for (const PipelineShape& shape : space_.shapes(layout.pipeline, layout.microbatches)) {
      LayoutSpace::apply(shape, layout);
      const Tactics& below_shape = tactics(space_.most_layers(layout.pipeline, shape));
      if (is_hopeless(layout, least(busy + bubble(layout, shard.block)), memory)) {
        found_.counts.slower += below_shape.points;
      } else {
        search_shape(layout, shard, below_shape, memory);
      }
    }
  }

  // Of equal stages without recomputation; unequal ones and recomputation only add to it.
  double bubble(const ParallelLayout& layout, const LayerShard& block) const {
    const double layers = static_cast<double>(model_.job().network.layers) / static_cast<double>(layout.stages());
    const StageWork stage{
        layers * (block.forward + block.tensor_forward + block.context_forward + block.expert_forward),
        layers * (block.backward_input + block.tensor_backward + block.context_backward + block.expert_backward),
        layers * block.backward_weight};
    return bubble_time(layout.schedule, layout.pipeline, layout.virtual_stages, layout.microbatches, stage);
  }

  struct Tactics {
    std::vector<Recomputation> here, offloaded;  // without and with offloaded activations
    std::int64_t points = 0;
  };
  const Tactics& tactics(std::int32_t layers) {
    const auto at = static_cast<std::size_t>(layers);
    if (tactics_.size() <= at) tactics_.resize(at + 1);
    Tactics& tactics = tactics_[at];
    if (tactics.points > 0) return tactics;
    tactics = {space_.recomputations(layers, false), space_.recomputations(layers, true), 0};
    for (const Residence& residence : residences_) {
      const auto& list = residence.offload_activations ? tactics.offloaded : tactics.here;
      tactics.points += space_.overlap_count(*widths_, residence) * std::ssize(list);
    }
    return tactics;
  }

  // ZeRO, offloading and recomputation of one shape. `memory`: bytes that none of them needs less of.
  void search_shape(ParallelLayout layout, const Shard& shard, const Tactics& tactics, double memory) {
    std::int64_t left = tactics.points;
    bool is_first = true;
    for (const Residence& residence : residences_) {
      const auto& recomputations = residence.offload_activations ? tactics.offloaded : tactics.here;
      if (recomputations.empty()) continue;
      LayoutSpace::apply(residence, layout);
      space_.overlap_all(layout);
      LayoutSpace::apply(recomputations.front(), layout);
      const JudgedLayout fastest{layout, model_.estimate(layout, shard)};
      // What does not depend on where weights and optimizer are, once for all of them.
      if (std::exchange(is_first, false) && is_hopeless(layout, least(time_anywhere(fastest.estimate.terms)), memory)) {
        found_.counts.slower += left;
        return;
      }
      const std::int64_t here = space_.overlap_count(*widths_, residence) * std::ssize(recomputations);
      left -= here;
      search_residence(fastest, shard, recomputations, here);
    }
  }

  // Recomputation, with `fastest` having the least of it.
  void search_residence(const JudgedLayout& fastest, const Shard& shard,
                        const std::vector<Recomputation>& recomputations, std::int64_t points) {
    LayoutCounts& counts = found_.counts;
    if (fastest.layout.offload_activations) {
      // What is recomputed need not be moved: neither is sure to be faster.
      for (const Recomputation& recomputation : recomputations) {
        const JudgedLayout judged = judge(fastest.layout, shard, recomputation);
        if (judged.estimate.fits) add(judged);
        if (!judged.estimate.fits && &recomputation == &recomputations.back()) found_.misses.add(judged);
      }
      counts.judged += std::ssize(recomputations);
      counts.dominated += points - std::ssize(recomputations);
      return;
    }
    const double time = fastest.estimate.time.value();
    ++counts.judged;
    std::int64_t judged = 1;
    if (fastest.estimate.fits) add(fastest);
    const bool only_time = options_.objective != LayoutObjective::memory && !options_.front;
    if (only_time && is_hopeless(fastest.layout, time, 0)) {
      counts.slower += points - judged;
      return;
    }
    // Everything else takes at least as long; so where the fastest fits and only time counts, it is the best.
    if (only_time && fastest.estimate.fits) {
      counts.dominated += points - judged;
      return;
    }
    const JudgedLayout smallest = judge(fastest.layout, shard, recomputations.back());
    if (!smallest.estimate.fits) {
      found_.misses.add(smallest);
      counts.too_large += points - judged;
    } else if (is_hopeless(fastest.layout, time, least(smallest.estimate.memory.total()))) {
      counts.slower += points - judged;
    } else {
      judged += only_time ? search_least_recomputation(fastest.layout, shard, recomputations)
                          : judge_recomputations(fastest.layout, shard, recomputations);
      counts.judged += judged - 1;
      counts.dominated += points - judged;
    }
  }

  void add(const JudgedLayout& judged) {
    found_.ranking.add(judged);
    if (options_.front) found_.front.add(judged);
  }

  JudgedLayout judge(ParallelLayout layout, const Shard& shard, const Recomputation& recomputation) const {
    LayoutSpace::apply(recomputation, layout);
    return {layout, model_.estimate(layout, shard)};
  }

  // Of each mode the fewest blocks with which the layout fits; how many points were judged.
  std::int64_t search_least_recomputation(const ParallelLayout& layout, const Shard& shard,
                                          const std::vector<Recomputation>& recomputations) {
    std::int64_t judged = 0;
    for (auto mode = recomputations.begin() + 1; mode != recomputations.end();) {
      const auto end = std::find_if(mode, recomputations.end(),
                                    [&](const Recomputation& other) { return other.mode != mode->mode; });
      ++judged;
      const JudgedLayout most = judge(layout, shard, *(end - 1));
      if (most.estimate.fits) {
        // More blocks never need more memory: bisect.
        JudgedLayout fitting = most;
        for (auto last = end - 1; mode != last;) {
          const auto middle = mode + (last - mode) / 2;
          ++judged;
          const JudgedLayout tried = judge(layout, shard, *middle);
          if (tried.estimate.fits) {
            fitting = tried;
            last = middle;
          } else {
            mode = middle + 1;
          }
        }
        add(fitting);
      }
      mode = end;
    }
    return judged;
  }

  std::int64_t judge_recomputations(const ParallelLayout& layout, const Shard& shard,
                                    const std::vector<Recomputation>& recomputations) {
    for (auto each = recomputations.begin() + 1; each != recomputations.end(); ++each) {
      const JudgedLayout judged = judge(layout, shard, *each);
      if (judged.estimate.fits) add(judged);
    }
    return std::ssize(recomputations) - 1;
  }

  const LayoutSpace& space_;
  const StepModel& model_;
  const LayoutSearchOptions& options_;
  Found found_;
  const Widths* widths_ = nullptr;
  std::vector<Residence> residences_;
  std::vector<Tactics> tactics_;  // by blocks of the fullest rank; no points: not listed yet
};

// Calls work(i) for i below `count`, on several threads.
template <class Work>
void in_parallel(unsigned threads, std::size_t count, const Work& work) {
  std::atomic<std::size_t> next{0};
  const auto loop = [&] {
    for (std::size_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::jthread> others;
  for (unsigned t = 1; t < std::min<std::size_t>(threads, count); ++t) others.emplace_back(loop);
  loop();
}

unsigned thread_count(const LayoutSearchOptions& options) {
  return options.threads > 0 ? options.threads : std::max(1U, std::thread::hardware_concurrency());
}

LayoutResult finish(Found found, const LayoutSearchOptions& options) {
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

struct Task {
  std::size_t widths;   // position in LayoutSpace::widths()
  double time, memory;  // lower bounds
};

// Most promising first.
std::vector<Task> tasks_of(const LayoutSpace& space, LayoutObjective objective) {
  WidthBounds bounds(space);
  std::vector<Task> tasks;
  for (std::size_t i = 0; i < space.widths().size(); ++i) {
    const Widths& widths = space.widths()[i];
    double time = bounds.time(widths);
    if (objective == LayoutObjective::cost) time *= static_cast<double>(widths.devices());
    tasks.push_back({i, time, 0});
  }
  std::stable_sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) { return a.time < b.time; });
  return tasks;
}

void merge(const Found& from, const LayoutSearchOptions& options, Found& into) {
  for (const JudgedLayout& judged : from.ranking.best()) into.ranking.add(judged);
  for (const JudgedLayout& judged : from.misses.best()) into.misses.add(judged);
  if (options.front) {
    for (const JudgedLayout& judged : from.front.points()) into.front.add(judged);
  }
  into.counts += from.counts;
}

}  // namespace

std::span<const std::pair<std::string_view, LayoutObjective>> layout_objective_names() {
  static constexpr std::array<std::pair<std::string_view, LayoutObjective>, 3> names{
      {{"time", LayoutObjective::time}, {"cost", LayoutObjective::cost}, {"memory", LayoutObjective::memory}}};
  return names;
}

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
  Found found(options);
  const std::vector<Task> tasks = tasks_of(space, options.objective);
  const WidthBounds bounds(space);
  std::vector<std::size_t> hopeful;
  for (std::size_t at = 0; at < tasks.size();) {
    // The thresholds of the batches before decide what this batch looks at, whatever the threads do.
    hopeful.clear();
    for (; at < tasks.size() && hopeful.size() < batch_size; ++at) {
      const Task& task = tasks[at];
      const Widths& widths = space.widths()[task.widths];
      const bool can_rank =
          options.objective == LayoutObjective::memory || task.time <= found.ranking.threshold().first;
      if (can_rank || (options.front && !found.front.covers(task.time, bounds.memory(widths)))) {
        hopeful.push_back(task.widths);
      } else {
        found.counts.points += space.points_by_widths()[task.widths];
        found.counts.slower_widths += space.points_by_widths()[task.widths];
      }
    }
    std::vector<Found> results(hopeful.size(), Found(options));
    in_parallel(thread_count(options), hopeful.size(), [&](std::size_t i) {
      const Widths& widths = space.widths()[hopeful[i]];
      results[i] =
          WidthSearch(space, options, found).run(widths, bounds.memory(widths), space.points_by_widths()[hopeful[i]]);
    });
    for (const Found& result : results) merge(result, options, found);
  }
  return finish(std::move(found), options);
}

LayoutResult judge_all_layouts(const LayoutSpace& space, const LayoutSearchOptions& options) {
  Found found(options);
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
              for (const Recomputation& recomputation :
                   space.recomputations(space.most_layers(layout.pipeline, shape), residence.offload_activations)) {
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
  return finish(std::move(found), options);
}

std::vector<JudgedLayout> pareto_front(const LayoutSpace& space) {
  std::vector<JudgedLayout> all;
  for (LayoutChoices choices = space.choices(); choices.devices > 0; choices.devices /= 2) {
    try {
      const LayoutResult result =
          search_layouts(LayoutSpace(space.model(), choices), {.near_misses = 0, .front = true});
      all.insert(all.end(), result.front.begin(), result.front.end());
    } catch (const Error&) {  // what is fixed needs more devices
      break;
    }
  }
  const auto numbers = [](const JudgedLayout& point) {
    return std::tuple(point.layout.devices(), point.estimate.time.value(), point.estimate.memory.total());
  };
  std::vector<JudgedLayout> front;
  for (const JudgedLayout& point : all) {
    const auto [devices, time, memory] = numbers(point);
    const bool is_beaten =
        std::any_of(all.begin(), all.end(), [&, d = devices, t = time, m = memory](const auto& other) {
          const auto [its_devices, its_time, its_memory] = numbers(other);
          return its_devices <= d && its_time <= t && its_memory <= m &&
                 std::tuple(its_devices, its_time, its_memory) < std::tuple(d, t, m);
        });
    const bool is_there = std::any_of(front.begin(), front.end(),
                                      [&](const JudgedLayout& other) { return other.layout == point.layout; });
    if (!is_beaten && !is_there) front.push_back(point);
  }
  std::stable_sort(front.begin(), front.end(), [&](const JudgedLayout& a, const JudgedLayout& b) {
    const auto [a_devices, a_time, a_memory] = numbers(a);
    const auto [b_devices, b_time, b_memory] = numbers(b);
    return std::tuple(-a_devices, a_time, a_memory) < std::tuple(-b_devices, b_time, b_memory);
  });
  return front;
}

JudgedLayout smallest_layout(const LayoutSpace& space) {
  Machine roomy = space.model().machine();
  roomy.device.memory = Bytes(1e30);
  const StepModel model(space.model().job(), roomy);
  return search_layouts(LayoutSpace(model, space.choices()), {.objective = LayoutObjective::memory, .keep = 1})
      .best.front();
}

}  // namespace stagecraft
