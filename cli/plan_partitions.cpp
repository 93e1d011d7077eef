#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/console.hpp"
#include "cli/partition_output.hpp"
#include "cli/plan_engine.hpp"
#include "cli/plan_options.hpp"
#include "cli/plan_precision.hpp"
#include "models/cost/constants.hpp"
#include "models/cost/framework_cost.hpp"
#include "models/cost/profiled.hpp"
#include "models/cost/roofline.hpp"
#include "models/files.hpp"
#include "models/profile.hpp"
#include "models/text.hpp"
#include "models/version.hpp"
#include "planner/confirm.hpp"
#include "planner/device_groups.hpp"
#include "planner/explain.hpp"
#include "planner/framework_space.hpp"
#include "planner/plan_front.hpp"

namespace stagecraft {
namespace {

// Of a plan whose costs lie between or beyond what was measured; empty: it is one of the `measured` sizes.
std::string microbatch_note(std::int64_t microbatch, const std::vector<std::int64_t>& measured) {
  if (measured.empty() || std::find(measured.begin(), measured.end(), microbatch) != measured.end()) return {};
  const bool is_beyond = microbatch < measured.front() || microbatch > measured.back();
  return fmt::format("micro-batches of {} were not measured: their costs are {} those of {}", microbatch,
                     is_beyond ? "extrapolated from" : "interpolated between", fmt::join(measured, ", "));
}

// What is planned, on this cluster and on changed ones.
class Job {
 public:
  Job(const PlanOptions& given, const Network& network, const Cluster& cluster)
      : options_(given), network_(network), cluster_(cluster) {
    if (given.profile.empty()) {
      options_ = with_precision(given, cluster, nullptr);
      if (given.framework.empty()) {
        model_ = std::make_unique<RooflineCostModel>(reserved_memory(cluster));
      } else {
        model_ = std::make_unique<FrameworkCostModel>(network, cluster, given.framework,
                                                      given.layout.sequence_parallel.value_or(true));
      }
    } else {
      read_profile();
    }
    grouped_ = may_group(options_, network, cluster_);
    tensor_ = options_.layout.tensor;
    for (const FrameworkPreset& preset : load_calibration().frameworks) {
      if (preset.name == given.framework) abilities_ = preset.runs;
    }
  }

  const PlanOptions& options() const { return options_; }
  const Cluster& cluster() const { return cluster_; }  // with the link that was measured
  const CostModel& model() const { return *model_; }
  const std::string& profile_digest() const { return profile_digest_; }

  // Ranked, and the best few confirmed in SimGrid.
  SearchResult plan(const Cluster& cluster) { return plan(cluster, space_on(cluster)); }

  std::vector<ScaledPlan> scale() {
    const int usable = options_.devices > 0 ? options_.devices : devices_in(cluster_);
    std::vector<ScaledPlan> scaled;
    for (const ScalePoint& point : scale_points(options_.scaling, options_.space.global_batch, options_.weak, usable)) {
      SearchSpace space = space_on(cluster_);
      space.devices = point.devices;
      space.global_batch = point.batch;
      scaled.push_back({point, {}});
      try {
        scaled.back().best = std::move(plan(cluster_, space).ranked.front());
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::infeasible) throw;
      }
    }
    return scaled;
  }

  std::vector<RankedPlan> front() {
    return plan_front(space_on(cluster_), devices_in(cluster_),
                      [&](const SearchSpace& space) { return std::move(search_on(cluster_, space).ranked.front()); });
  }

  std::vector<std::string> notes(const Plan& best) const {
    std::vector<std::string> notes{options_.precision_note, microbatch_note(best.batch.microbatch, measured_)};
    if (!options_.framework.empty()) notes.push_back(framework_note());
    std::erase(notes, "");
    return notes;
  }

 private:
  SearchSpace space_on(const Cluster& cluster) {
    SearchSpace space = search_space(options_, network_, cluster);
    space.zero = options_.layout.zero.value_or(0);
    space.recomputed_layers = options_.layout.recomputed_layers;
    space.recomputed_blocks = options_.recomputed_blocks;
    space.ranks = options_.layout.pipeline;
    if (!space.recomputed_blocks.empty() && !space.ranks) {
      space.ranks = static_cast<int>(space.recomputed_blocks.size());
    }
    space.sequence_parallel = options_.layout.sequence_parallel.value_or(true);
    space.stages_per_rank = options_.layout.virtual_stages;
    if (abilities_) leave_possible(space, tensor_, *abilities_);
    space.also_sharded = grouped_ && !options_.layout.zero && (!abilities_ || shards_anywhere(*abilities_));
    space.also_fewest = grouped_ && !abilities_ && !space.recomputed_layers && !space.recompute;
    return space;
  }

  SearchResult search_on(const Cluster& cluster, const SearchSpace& space) const {
    return grouped_ ? search_groups(network_, cluster, *model_, space, tensor_)
                    : search(network_, cluster, *model_, space);
  }

  SearchResult plan(const Cluster& cluster, SearchSpace space) const {
    space.contend = options_.confirm > 0;
    SearchResult result = search_on(cluster, space);
    confirm_best(result, options_.confirm, space.keep);
    return result;
  }

  std::string framework_note() const {
    return fmt::format("costs with the constants of {}, but reductions of gradients are not overlapped; {}",
                       options_.framework,
                       abilities_ ? "what it runs, with one tensor width for all devices"
                                  : "what it runs is not known, so all is searched");
  }

  void read_profile() {
    const std::string text = read_file(options_.profile);
    const Json document = parse_json(text, options_.profile);
    Profile profile = profile_from_json(JsonValue(document, options_.profile));
    options_ = with_precision(options_, cluster_, &profile);
    if (options_.sequence == 0) options_.sequence = profile.sequence;
    // The link that was measured last is the slowest: a profile taken under mpirun also has that between processes. One
    // GPU has none.
    if (!profile.links.empty()) cluster_ = with_measured_link(cluster_, profile, profile.links.back().kind);
    profile_digest_ = digest(text);
    measured_ = measured_microbatches(profile);
    model_ = std::make_unique<ProfiledCostModel>(std::move(profile));
  }

  PlanOptions options_;
  const Network& network_;
  Cluster cluster_;
  std::unique_ptr<CostModel> model_;
  std::string profile_digest_;
  std::vector<std::int64_t> measured_;  // micro-batches
  bool grouped_ = false;
  std::optional<int> tensor_;           // width of groups
  std::optional<Abilities> abilities_;  // of a framework; empty: any
};

}  // namespace

void plan_partitions(const PlanOptions& given, const Network& network, const Cluster& cluster) {
  Job job(given, network, cluster);
  const PlanOptions& options = job.options();
  Progress progress;
  progress.show("searching ...");
  PartitionAnswer answer{options, job.plan(job.cluster()), {}, {}, {}, {}};
  SearchResult& result = answer.result;
  give_verdicts(result);
  for (std::string& remark : job.notes(result.best())) result.notes.push_back(std::move(remark));
  if (options.explain) {
    int asked = 0;
    const Replan replan = [&](const Cluster& changed) {
      progress.show(fmt::format("asking what if: {} planned ...", asked++));
      return job.plan(changed);
    };
    answer.what_if = what_if(result, job.cluster(), job.model(), !options.profile.empty(), replan);
    answer.other_clusters = what_if_nodes(result, job.cluster(), replan);
  }
  if (!options.scaling.empty()) {
    progress.show("scaling ...");
    answer.scaling = job.scale();
  }
  if (options.pareto) {
    progress.show("looking for smaller plans ...");
    answer.front = job.front();
  }
  progress.show("");

  Plan& plan = result.ranked.front().plan;
  plan.tool_version = version;
  plan.profile_digest = job.profile_digest();
  if (!options.output.empty()) save_plan(plan, options.output);
  if (options.json) return print_json(to_json(answer));
  print(to_text(answer));
  if (!options.output.empty()) note("wrote " + options.output);
}

}  // namespace stagecraft
