#include "planner/layouts.hpp"

#include <algorithm>
#include <array>
#include <numeric>

#include "models/cost/memory.hpp"
#include "models/error.hpp"
#include "models/network/layer_graph.hpp"
#include "models/recomputed_layers.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

constexpr std::int64_t max_computes = 8'000'000;  // of one replica's schedule: beyond, even one timeline takes a second
constexpr std::size_t max_microbatches = 64;      // sizes tried a number of replicas

// In rising order.
std::vector<std::int64_t> divisors(std::int64_t number) {
  std::vector<std::int64_t> low, high;
  for (std::int64_t d = 1; d * d <= number; ++d) {
    if (number % d != 0) continue;
    low.push_back(d);
    if (d != number / d) high.push_back(number / d);
  }
  low.insert(low.end(), high.rbegin(), high.rend());
  return low;
}

void require_at_least_one(std::int64_t value, std::string_view what) {
  if (value < 1) throw bad_input("{}: expected at least 1, got {}", what, value);
}

void check_counts(const SearchSpace& space) {
  require_at_least_one(space.global_batch, "global batch");
  require_at_least_one(space.sequence, "sequence");
  require_at_least_one(space.stages.value_or(1), "stages");
  require_at_least_one(space.replicas.value_or(1), "replicas");
  require_at_least_one(space.microbatch.value_or(1), "micro-batch");
  require_at_least_one(space.devices.value_or(1), "devices");
  if (space.global_batch > std::int64_t{1} << 40) {
    throw bad_input("global batch: expected at most {} samples, got {}", std::int64_t{1} << 40, space.global_batch);
  }
}

// The divisors of `number` next to one that is none: "32 or 64".
std::string nearest_divisors(std::int64_t number, std::int64_t wanted) {
  const std::vector<std::int64_t> all = divisors(number);
  const auto above = std::upper_bound(all.begin(), all.end(), wanted);
  std::string text = std::to_string(*std::prev(above));  // 1 at least
  return above == all.end() ? text : fmt::format("{} or {}", text, *above);
}

void check_batch(const SearchSpace& space) {
  const std::int64_t batch = space.global_batch, replicas = space.replicas.value_or(1);
  const std::int64_t microbatch = space.microbatch.value_or(1), samples = batch / replicas;
  if (batch % replicas != 0) {
    throw bad_input("--replicas: the global batch of {} does not divide over {}; over {} it does",
                    counted(batch, "sample"), counted(replicas, "replica"), nearest_divisors(batch, replicas));
  }
  if (samples % microbatch == 0) return;
  const std::string sizes = nearest_divisors(samples, microbatch);
  if (replicas == 1) {
    throw bad_input("--micro-batch: the global batch of {} does not divide into micro-batches of {}; into {} it does",
                    counted(batch, "sample"), microbatch, sizes);
  }
  throw bad_input(
      "--micro-batch: a replica's share of the global batch, {} of {} over {}, does not divide into micro-batches of "
      "{}; into {} it does",
      samples, batch, counted(replicas, "replica"), microbatch, sizes);
}

void check_cuts(const SearchSpace& space, std::int64_t layers) {
  std::int64_t before = 0;
  for (const std::int64_t cut : space.cuts) {
    if (cut <= before || cut >= layers) {
      throw bad_input("cuts: expected rising layer positions from 1 to {}, got {} after {}", layers - 1, cut, before);
    }
    before = cut;
  }
  if (space.stages && !space.cuts.empty() && space.cuts.size() + 1 != static_cast<std::size_t>(*space.stages)) {
    throw bad_input("{} {} {} stages, but {} asked for", counted(std::ssize(space.cuts), "cut"),
                    space.cuts.size() == 1 ? "makes" : "make", space.cuts.size() + 1,
                    *space.stages == 1 ? "1 is" : fmt::format("{} are", *space.stages));
  }
}

// Like devices cost the same, whatever that is.
void check_prices(const SearchSpace& space, const Cluster& cluster) {
  if (space.objective != LayoutObjective::cost) return;
  const DeviceType& first = cluster.type_of(DeviceId{0});
  for (const Device& device : cluster.devices) {
    const DeviceType& type = cluster.device_types[static_cast<std::size_t>(device.type)];
    if (&type == &first || (type.price > 0 && first.price > 0)) continue;
    throw bad_input(
        "--objective: cost needs a price of every device type, and '{}' has none: expected --price {}=USD, or "
        "\"price\" in the cluster's file",
        printable((type.price > 0 ? first : type).name), printable((type.price > 0 ? first : type).name));
  }
}

void check_schedule(const SearchSpace& space) {
  if (!space.schedule) return;
  std::vector<std::string> names;
  for (const ScheduleKind& kind : schedule_kinds()) names.emplace_back(kind.name);
  if (std::find(names.begin(), names.end(), *space.schedule) == names.end()) {
    throw bad_input("unknown schedule '{}'{}; known: {}", printable(*space.schedule),
                    did_you_mean(*space.schedule, names), join(names));
  }
}

// That says how many ranks there are.
std::string_view pipeline_option(const SearchSpace& space) {
  return space.recomputed_blocks.empty() ? "--pipeline" : "--recompute-layers";
}

// Devices of a pipeline, and stages of a device.
void check_ranks(const SearchSpace& space, std::int64_t layers, int devices) {
  const std::int64_t ranks = space.ranks.value_or(1), each = space.stages_per_rank.value_or(1);
  constexpr std::array chunks{1, 2, 4, 8};
  if (std::find(chunks.begin(), chunks.end(), each) == chunks.end()) {
    throw bad_input("--virtual-stages: expected one of {} where stages are cut layer by layer, got {}",
                    fmt::join(chunks, ", "), each);
  }
  if (each > 1 && !space.schedule) {
    throw bad_input(
        "--virtual-stages: expected --schedule with it, such as interleaved-1f1b, as {} have one stage a rank",
        join(space.schedules, " and "));
  }
  if (ranks * each > layers) {
    throw bad_input("{}: {} for a network that can be cut into at most {}",
                    space.ranks ? pipeline_option(space) : "--virtual-stages", counted(ranks * each, "stage"), layers);
  }
  const std::int64_t stages = space.cuts.empty() ? space.stages.value_or(0) : std::ssize(space.cuts) + 1;
  if (stages > 0 && space.ranks && space.stages_per_rank && ranks * each != stages) {
    throw bad_input("--pipeline: {} with {} each make {}, but {} asked for", counted(ranks, "rank"),
                    counted(each, "stage"), counted(ranks * each, "stage"), counted(stages, "stage"));
  }
  if (stages > 0 && (stages % ranks != 0 || stages % each != 0)) {
    throw bad_input("{}: expected a divisor of the {}, got {}", stages % ranks != 0 ? "--pipeline" : "--virtual-stages",
                    counted(stages, "stage"), stages % ranks != 0 ? ranks : each);
  }
  if (const std::int64_t needed = ranks * space.replicas.value_or(1); needed > devices) {
    throw infeasible("{}: {} in {} need {}, but {} can be used", pipeline_option(space), counted(ranks, "rank"),
                     counted(space.replicas.value_or(1), "replica"), counted(needed, "device"), devices);
  }
}

std::string recomputed_text(std::int32_t layers) {
  return layers == listed_layers ? "listed" : layers == fewest_layers ? "fewest" : std::to_string(layers);
}

// Of stages by hand.
void check_recomputed_of_cuts(const SearchSpace& space, const LayerGraph& graph, std::string_view given) {
  const std::vector<LayerId> order = topological_order(graph);
  std::int64_t from = 0;
  for (std::size_t stage = 0; stage <= space.cuts.size(); ++stage) {
    const std::int64_t to = stage < space.cuts.size() ? space.cuts[stage] : std::ssize(order);
    const auto blocks = std::count_if(order.begin() + from, order.begin() + to,
                                      [&](LayerId layer) { return may_recompute(graph[layer]); });
    const std::int32_t wanted =
        *space.recomputed_layers == listed_layers ? space.recomputed_blocks[stage] : *space.recomputed_layers;
    if (wanted > blocks) {
      throw bad_input("--recompute-layers: expected at most the {} that --cuts leaves to stage {}, got {}",
                      counted(blocks, "block"), stage, given);
    }
    from = to;
  }
}

// Blocks are counted by rank: one stage on one rank.
void check_recomputation(const SearchSpace& space, const Network& network) {
  if (!space.recomputed_layers) return;
  const bool is_listed = *space.recomputed_layers == listed_layers;
  const auto& listed = space.recomputed_blocks;
  const std::string given =
      is_listed ? fmt::format("{}", fmt::join(listed, ",")) : recomputed_text(*space.recomputed_layers);
  if (!network.transformer) {
    throw bad_input("--recompute-layers: expected a transformer, whose blocks are counted, got {}", given);
  }
  if (space.recompute == Recompute::none) {
    throw bad_input("--recompute-layers: expected --recompute selective or full with it, got {} with none", given);
  }
  const auto& kinds = schedule_kinds();
  const auto kind =
      std::find_if(kinds.begin(), kinds.end(), [&](const ScheduleKind& each) { return each.name == space.schedule; });
  const ScheduleShape shape{2, 1, 4};
  const bool has_one =
      kind == kinds.end() || (kind->refuse(shape).empty() && !Placement(kind->generate(shape)).is_bidirectional());
  if (!has_one || space.stages_per_rank.value_or(1) > 1) {
    throw bad_input("--recompute-layers: expected a schedule with one stage a rank, such as 1f1b, got {} with {}",
                    given, has_one ? "--virtual-stages" : *space.schedule);
  }
  const std::int64_t ranks =
      !space.cuts.empty() ? std::ssize(space.cuts) + 1 : space.stages.value_or(space.ranks.value_or(0));
  if (is_listed && ranks > 0 && ranks != std::ssize(listed)) {
    throw bad_input("--recompute-layers: expected a number for each of the {}, got {}", counted(ranks, "pipeline rank"),
                    given);
  }
  if (!space.cuts.empty()) return check_recomputed_of_cuts(space, network.graph, given);
  const std::int64_t blocks = network.transformer->layers;
  const std::int64_t sum = is_listed ? std::accumulate(listed.begin(), listed.end(), std::int64_t{0})
                                     : std::max<std::int64_t>(1, ranks) * std::max(0, *space.recomputed_layers);
  if (sum > blocks) {
    throw bad_input("--recompute-layers: expected at most the network's {} on all ranks, got {}{}",
                    counted(blocks, "block"), given,
                    !is_listed && ranks > 1 ? fmt::format(" on each of {}", ranks) : "");
  }
}

// What schedules that never flush cannot do.
void check_updates(const SearchSpace& space) {
  if (!is_asynchronous(space)) return;
  const auto fail = [&](const char* option, int expected, int given) {
    throw bad_input("{}: expected {}, as schedule '{}' is asynchronous and trains one replica, got {}", option,
                    expected, *space.schedule, given);
  };
  if (space.replicas.value_or(1) > 1) fail("--replicas", 1, *space.replicas);
  if (space.zero > 0) fail("--zero", 0, space.zero);
}

// Builds the list, loop by loop.
class Lister {
 public:
  Lister(const SearchSpace& space, std::int64_t cuttable, int devices)
      : space_(space), devices_(devices), replica_counts_(replica_counts()) {
    const int most = static_cast<int>(std::min<std::int64_t>(cuttable, 16LL * devices));
    for (int stages = space.stages.value_or(1); stages <= space.stages.value_or(most); ++stages) add_stages(stages);
  }
  LayoutList take() { return std::move(list_); }

 private:
  std::vector<std::int64_t> replica_counts() const {
    if (is_asynchronous(space_)) return {1};
    if (space_.replicas) return {*space_.replicas};
    std::vector<std::int64_t> counts = divisors(space_.global_batch);
    std::erase_if(counts, [&](std::int64_t count) { return count > devices_ || (space_.zero > 0 && count == 1); });
    return counts;
  }

  bool is_searched(std::string_view schedule) const {
    if (space_.schedule) return schedule == *space_.schedule;
    return std::find(space_.schedules.begin(), space_.schedules.end(), schedule) != space_.schedules.end();
  }

  void add_stages(int stages) {
    for (std::size_t kind = 0; kind < schedule_kinds().size(); ++kind) {
      if (!is_searched(schedule_kinds()[kind].name)) continue;
      for (const int chunks : {1, 2, 4, 8}) {
        if (stages % chunks != 0 || space_.ranks.value_or(stages / chunks) != stages / chunks) continue;
        if (space_.stages_per_rank.value_or(chunks) == chunks) add_shape(kind, stages, stages / chunks);
      }
    }
  }

  void add_shape(std::size_t kind, int stages, int ranks) {
    for (const std::int64_t replicas : replica_counts_) {
      if (ranks * replicas > devices_) continue;
      const std::int64_t samples = space_.global_batch / replicas;
      std::vector<std::int64_t> sizes = space_.microbatch ? std::vector{*space_.microbatch} : divisors(samples);
      std::erase_if(sizes, [&](std::int64_t size) {
        const bool is_long = samples / size > max_computes / 2 / stages;
        list_.too_long += is_long ? 1 : 0;
        return is_long || samples % size != 0;
      });
      sizes.resize(std::min(sizes.size(), max_microbatches));
      for (const std::int64_t size : sizes) {
        add({stages, ranks, static_cast<int>(replicas), size, samples / size, std::string(schedule_kinds()[kind].name),
             Recompute::none, space_.zero},
            kind);
      }
    }
  }

  void add(Layout layout, std::size_t kind) {
    const ScheduleShape shape{layout.ranks, layout.stages / layout.ranks, static_cast<int>(layout.microbatches)};
    if (const std::string refusal = schedule_kinds()[kind].refuse(shape); !refusal.empty()) {
      if (list_.refusal.empty() && (shape.stages_per_rank == 1 || space_.stages_per_rank || space_.ranks))
        list_.refusal = fmt::format("schedule '{}': {}", layout.schedule, refusal);
      return;
    }
    if (space_.recomputed_layers && layout.stages != layout.ranks) return;
    if (space_.recomputed_layers == listed_layers && layout.ranks != std::ssize(space_.recomputed_blocks)) return;
    layout.recomputed_layers = space_.recomputed_layers;
    for (const Recompute recompute : searched_recomputes(space_)) {
      if (layout.recomputed_layers && recompute == Recompute::none) continue;
      layout.recompute = recompute;
      list_.options.push_back({layout, kind});
    }
  }

  const SearchSpace& space_;
  int devices_;
  std::vector<std::int64_t> replica_counts_;
  LayoutList list_;
};

}  // namespace

std::vector<Recompute> searched_recomputes(const SearchSpace& space) {
  return space.recompute ? std::vector{*space.recompute} : space.recomputes;
}

bool is_asynchronous(const SearchSpace& space) {
  const auto& kinds = schedule_kinds();
  const auto kind =
      std::find_if(kinds.begin(), kinds.end(), [&](const ScheduleKind& each) { return each.name == space.schedule; });
  if (kind == kinds.end() || !kind->refuse({}).empty()) return false;
  return kind->generate({}).updates != WeightUpdates::synchronous;
}

int usable_devices(const Cluster& cluster, const SearchSpace& space) {
  const int all = static_cast<int>(cluster.devices.size());
  return std::min(all, space.devices.value_or(all));
}

void check_space(const SearchSpace& space, const Network& network, const Cluster& cluster) {
  check_counts(space);
  check_batch(space);
  check_prices(space, cluster);
  check_schedule(space);
  check_updates(space);
  const auto layers = static_cast<std::int64_t>(network.graph.layers());
  check_cuts(space, layers);
  if (network.transformer && space.sequence > network.transformer->max_sequence) {
    throw bad_input("sequence: expected at most the {} positions of network '{}', got {}",
                    network.transformer->max_sequence, printable(network.name), space.sequence);
  }
  if (space.stages.value_or(1) > layers) {
    throw bad_input("{} stages for network '{}': it can be cut into at most {}", *space.stages, printable(network.name),
                    layers);
  }
  if (space.zero < 0 || space.zero > 1)
    throw bad_input("--zero: expected 0 or 1 where pipelines and replicas are planned, got {}", space.zero);
  if (space.zero == 1 && space.replicas == 1) {
    throw bad_input("--zero: expected 0 with one replica, which shares nothing out, got 1");
  }
  const int devices = usable_devices(cluster, space);
  check_recomputation(space, network);
  check_ranks(space, layers, devices);
  if (space.zero == 1 && std::min<std::int64_t>(devices, space.global_batch) < 2) {
    throw infeasible("--zero: one replica is all that {} and {} allow, which shares nothing out",
                     counted(devices, "device"), counted(space.global_batch, "sample"));
  }
  if (space.replicas.value_or(1) > devices) {
    throw infeasible("{} replicas need as many devices at least, but {} of cluster '{}' can be used", *space.replicas,
                     devices, printable(cluster.name));
  }
}

LayoutList list_layouts(const SearchSpace& space, std::int64_t cuttable, int devices) {
  return Lister(space, cuttable, devices).take();
}

std::string to_string(const Layout& layout) {
  std::string text = fmt::format("P={}", layout.ranks);
  if (layout.stages != layout.ranks) text += fmt::format(" V={}", layout.stages / layout.ranks);
  std::string counted;
  if (layout.recomputed_layers) counted = ":" + recomputed_text(*layout.recomputed_layers);
  return text + fmt::format(" R={} b={} M={} {} recompute={}{}{}", layout.replicas, layout.microbatch,
                            layout.microbatches, layout.schedule, name(layout.recompute), counted,
                            layout.zero == 1 ? " zero1" : "");
}

}  // namespace stagecraft
