#include <algorithm>
#include <deque>
#include <nlohmann/json.hpp>

#include "cli/console.hpp"
#include "cli/layout_output.hpp"
#include "cli/plan_options.hpp"
#include "models/cost/constants.hpp"
#include "planner/layout_plan.hpp"
#include "planner/layouts.hpp"
#include "runtime/memory_need.hpp"

namespace stagecraft {
namespace {

// Fixes what the runtime does in one way only.
void leave_runnable(LayoutChoices& choices) {
  const auto fix = [](auto& choice, auto value) {
    if (!choice) choice = value;
  };
  fix(choices.context, 1);
  fix(choices.expert, 1);
  fix(choices.zero, 0);
  for (auto* const choice : {&choices.offload_optimizer, &choices.offload_activations, &choices.overlap_gradients,
                             &choices.overlap_parameters, &choices.overlap_tensor, &choices.overlap_pipeline}) {
    fix(*choice, false);
  }
}

// What a framework's file says that it runs, and where it says what it overlaps, that alone.
void leave_possible(LayoutChoices& choices, const std::string& framework) {
  for (const FrameworkPreset& preset : load_calibration().frameworks) {
    if (preset.name != framework) continue;
    choices.abilities = preset.runs;
    if (preset.overlaps.empty()) continue;
    const auto fix = [&](std::optional<bool>& choice, const char* overlap) {
      const bool has = std::find(preset.overlaps.begin(), preset.overlaps.end(), overlap) != preset.overlaps.end();
      if (!choice && !has) choice = false;
    };
    fix(choices.overlap_gradients, "gradients");
    fix(choices.overlap_parameters, "parameters");
    fix(choices.overlap_tensor, "tensor");
    fix(choices.overlap_pipeline, "pipeline");
  }
}

LayoutChoices choices_of(const PlanOptions& options, const SearchSpace& space, const Cluster& cluster) {
  LayoutChoices choices = options.layout;
  choices.devices = usable_devices(cluster, space);
  if (options.stages > 0) choices.stages = options.stages;
  if (options.replicas > 0) choices.data = options.replicas;
  if (options.microbatch > 0) choices.microbatch = static_cast<std::int32_t>(options.microbatch);
  choices.recompute = space.recompute;
  if (is_this_machine(options.cluster)) leave_runnable(choices);
  if (!options.framework.empty()) leave_possible(choices, options.framework);
  if (space.schedule) choices.schedule = choose("--schedule", *space.schedule, pipeline_schedule_names());
  if (!options.order.empty()) {
    choices.order = parse_order(options.order);
    if (!choices.order) {
      throw bad_input("--order: expected each of the letters t, c, d and p once, such as 'tcdp', got '{}'",
                      printable(options.order));
    }
  }
  return choices;
}

// Layer 0 is the embedding, the last one the head; what lies between are blocks.
std::vector<std::int32_t> blocks_between(const std::vector<std::int64_t>& cuts, std::int64_t blocks) {
  std::vector<std::int32_t> stages;
  std::int64_t first = 1;
  for (std::size_t s = 0; s <= cuts.size() && !cuts.empty(); ++s) {
    const std::int64_t end = s < cuts.size() ? std::min(cuts[s], blocks + 1) : blocks + 1;
    stages.push_back(static_cast<std::int32_t>(end - first));
    first = end;
  }
  return stages;
}

TrainingJob job_of(const PlanOptions& options, const SearchSpace& space, const Network& network) {
  TrainingJob job{*network.transformer, space.global_batch, space.sequence,
                  space.precision,      space.optimizer,    space.fused_attention};
  job.stage_blocks = blocks_between(space.cuts, job.network.layers);
  job.recomputed_blocks = options.recomputed_blocks;
  return job;
}

StepModel model_of(const PlanOptions& options, const SearchSpace& space, const Network& network,
                   const Cluster& cluster) {
  check_space(space, network, cluster);
  StepModel model(job_of(options, space, network), machine_of(cluster, options.framework));
  const DeviceType& device = model.machine().device;
  if (!(device.peak_of(space.precision) > FlopsPerSecond(0))) {
    throw bad_input("--precision: device '{}' does not compute in {}; it does in {}", printable(device.name),
                    options.precisions.front(), join(precisions_of(device)));
  }
  return model;
}

// Searches, plans the best few in full, and asks what the user wants to know besides.
LayoutAnswer answer(const PlanOptions& options, const SearchSpace& search_space, const StepModel& model,
                    const Network& network, const Cluster& cluster) {
  Progress progress;
  const std::string& precision = options.precisions.front();
  progress.show(fmt::format("searching in {} ...", precision));
  const auto objective = choose("--objective", options.objective, layout_objective_names());
  const LayoutSpace space(model, choices_of(options, search_space, cluster));
  PlanningOptions planning{.objective = objective,
                           .keep = static_cast<std::size_t>(search_space.keep),
                           .confirm = static_cast<std::size_t>(options.confirm),
                           .staggered = options.layout.staggered_steps};
  // What is to run here is foreseen as `run` lays it out.
  if (is_this_machine(options.cluster)) planning.memory = needed_memory;
  LayoutAnswer answer{options, model, precision, {}, {}, {}, {}};
  // Twice as many as wanted, should some not fit in full; more while none does and there are more.
  std::size_t found = 2 * std::max(planning.keep, planning.confirm);
  while (true) {
    answer.result = search_layouts(space, {.objective = objective, .keep = found, .near_misses = planning.keep});
    if (answer.result.best.empty()) throw no_layout_fits(space, network.name, cluster.name);
    progress.show("confirming with SimGrid ...");
    answer.planned = plan_in_full(model, network, cluster, answer.result.best, planning);
    if (answer.planned.best.front().memory() <= model.machine().device.memory) break;
    if (answer.result.best.size() < found) break;
    found *= 8;
  }
  if (options.pareto) answer.result.front = pareto_front(space);
  if (options.explain || !options.scaling.empty()) progress.show("asking what if ...");
  if (options.explain) answer.what_if = what_if(space, answer.planned.best.front().judged, objective);
  if (!options.scaling.empty()) {
    answer.scaling = scale(model, space.choices(), objective, options.scaling, options.weak);
  }
  progress.show("");
  return answer;
}

// What the objective compares.
LayoutScore score(const LayoutAnswer& answer) {
  const PlannedLayout& best = answer.planned.best.front();
  const auto objective = choose("--objective", answer.options.objective, layout_objective_names());
  return score_of(objective, best.judged.layout, best.step().value(), best.memory().value());
}

}  // namespace

// One search for each precision that the user would train in.
void plan_layouts(const PlanOptions& options, const Network& network, const Cluster& cluster) {
  std::deque<PlanOptions> alone;
  std::deque<StepModel> models;
  std::vector<LayoutAnswer> answers;
  for (const std::string& precision : options.precisions) {
    alone.push_back(options);
    alone.back().precisions = {precision};
    const SearchSpace space = search_space(alone.back(), network, cluster);
    models.push_back(model_of(alone.back(), space, network, cluster));
    answers.push_back(answer(alone.back(), space, models.back(), network, cluster));
  }
  const LayoutAnswer& best = *std::min_element(answers.begin(), answers.end(),
                                               [](const auto& a, const auto& b) { return score(a) < score(b); });
  const PlannedLayout& planned = best.planned.best.front();
  if (!options.output.empty()) save_plan(planned.plan, options.output);
  if (options.json) {
    Json json = to_json(best);
    json["precision"] = best.precision;
    json["precisions"] = precisions_json(answers);
    print_json(json);
  } else {
    print(to_text(best) + precisions_text(answers, best));
  }
  const Bytes capacity = planned.plan.cluster.type_of(planned.plan.devices.front().front()).memory;
  if (planned.memory() > capacity) {
    note(fmt::format("the plan needs {} of {} on its fullest device: it would run out of memory",
                     to_string(planned.memory()), to_string(capacity)));
  }
  if (!options.precision_note.empty()) note(options.precision_note);
  for (const std::string& unlike : unlike_fitted(cluster)) note(unlike);
  if (!options.output.empty()) note("wrote " + options.output);
}

}  // namespace stagecraft
