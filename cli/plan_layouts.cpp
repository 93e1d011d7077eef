#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/console.hpp"
#include "cli/plan_options.hpp"
#include "planner/confirm.hpp"
#include "planner/layout_advice.hpp"
#include "planner/layout_plan.hpp"
#include "planner/layout_ranking.hpp"
#include "planner/layouts.hpp"
#include "reports/tables.hpp"
#include "reports/text_width.hpp"
#include "runtime/memory_need.hpp"

namespace stagecraft {
namespace {

constexpr double seconds_an_hour = 3600;

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

LayoutChoices choices_of(const PlanOptions& options, const SearchSpace& space, const Cluster& cluster) {
  LayoutChoices choices = options.layout;
  choices.devices = usable_devices(cluster, space);
  if (options.stages > 0) choices.stages = options.stages;
  if (options.replicas > 0) choices.data = options.replicas;
  if (options.microbatch > 0) choices.microbatch = static_cast<std::int32_t>(options.microbatch);
  choices.recompute = space.recompute;
  if (options.cluster.starts_with("local-")) leave_runnable(choices);
  if (space.schedule) choices.schedule = choose("--schedule", *space.schedule, pipeline_schedule_names());
  if (!options.order.empty()) {
    choices.order = with_context("--order", [&] { return parse_layout("order=" + options.order).order; });
  }
  return choices;
}

TrainingJob job_of(const SearchSpace& space, const Network& network) {
  return {*network.transformer, space.global_batch, space.sequence,
          space.precision,      space.optimizer,    space.fused_attention};
}

// "p8v1t4c1d16b2 1f1b": what tables have room for.
std::string short_text(const ParallelLayout& l) {
  return fmt::format("p{}v{}t{}c{}d{}b{} {}", l.pipeline, l.virtual_stages, l.tensor, l.context, l.data, l.microbatch,
                     printable(name(l.schedule), 12));
}

// A layout with its plan, judged by the simulators.
struct Ranked {
  JudgedLayout judged;
  Plan plan;
};

Seconds best_prediction(const Ranked& ranked) {
  const Prediction& prediction = ranked.plan.prediction;
  return prediction.simgrid_step ? *prediction.simgrid_step : *prediction.timeline_step;
}

class LayoutPlanning {
 public:
  LayoutPlanning(PlanOptions options, const Network& network, const Cluster& cluster)
      : options_(std::move(options)),
        network_(network),
        cluster_(cluster),
        search_space_(search_space(options_, network)),
        model_(job_of(search_space_, network), machine_of(cluster)),
        objective_(choose("--objective", options_.objective, layout_objective_names())) {
    check_space(search_space_, network, cluster);
    const DeviceType& device = model_.machine().device;
    if (!(device.peak_of(search_space_.precision) > FlopsPerSecond(0))) {
      throw bad_input("--precision: device '{}' has no rate for {}", device.name, name(search_space_.precision));
    }
  }

  // Searches, and re-judges the best few.
  void search() {
    Progress progress;
    progress.show(fmt::format("searching in {} ...", precision()));
    space_.emplace(model_, choices_of(options_, search_space_, cluster_));
    LayoutSearchOptions wanted;
    wanted.objective = objective_;
    wanted.keep = static_cast<std::size_t>(std::max(search_space_.keep, options_.confirm));
    wanted.near_misses = static_cast<std::size_t>(search_space_.keep);
    result_ = search_layouts(*space_, wanted);
    if (result_.best.empty()) throw no_layout_fits(*space_, network_.name, cluster_.name);
    if (options_.pareto) result_.front = pareto_front(*space_);
    progress.show("confirming with SimGrid ...");
    confirm();
    progress.show("");
  }

  // REQUIRES of what follows: search().
  const Plan& plan() const { return ranked_.front().plan; }
  const JudgedLayout& best() const { return ranked_.front().judged; }
  Seconds step() const { return best_prediction(ranked_.front()); }
  const std::string& precision() const { return options_.precisions.front(); }
  // What the objective compares.
  LayoutScore score() const {
    return score_of(objective_, best().layout, step().value(), best().estimate.memory.total());
  }
  std::string text() const;
  Json json() const;
  // A row of the table of precisions, and its entry.
  std::vector<std::string> precision_row() const {
    const double tokens = static_cast<double>(model_.job().global_batch * model_.job().sequence);
    return {precision(), to_string(step()), with_thousands(static_cast<long long>(tokens / step().value())),
            to_string(Bytes(best().estimate.memory.total())), short_text(best().layout)};
  }
  Json precision_json() const {
    Json entry = judged_json(best());
    entry["precision"] = precision();
    entry["step_s"] = step().value();
    return entry;
  }

 private:
  // Re-judges the best few by timeline and SimGrid; where time counts, the fastest goes first.
  void confirm() {
    for (const JudgedLayout& judged : result_.best) {
      if (ranked_.size() == static_cast<std::size_t>(std::max(search_space_.keep, options_.confirm))) break;
      ranked_.push_back({judged, make_plan(model_, network_, cluster_, judged.layout)});
      if (!options_.cluster.starts_with("local-")) continue;
      // What is to run here is foreseen as `run` lays it out.
      if (auto memory = needed_memory(ranked_.back().plan); !memory.empty()) {
        ranked_.back().plan.prediction.peak_memory = std::move(memory);
      }
    }
    const auto by_prediction = [](const Ranked& a, const Ranked& b) { return best_prediction(a) < best_prediction(b); };
    // The simulators play one step to its end; staggered steps overlap with the next.
    const bool reorder = objective_ != LayoutObjective::memory && !options_.layout.staggered_steps;
    if (reorder) std::stable_sort(ranked_.begin(), ranked_.end(), by_prediction);
    const auto end = ranked_.begin() + std::min<std::ptrdiff_t>(options_.confirm, std::ssize(ranked_));
    std::vector<Plan*> plans;
    for (auto ranked = ranked_.begin(); ranked != end; ++ranked) plans.push_back(&ranked->plan);
    stagecraft::confirm(plans);
    if (reorder) std::stable_sort(ranked_.begin(), end, by_prediction);
    ranked_.resize(std::min(ranked_.size(), static_cast<std::size_t>(search_space_.keep)));
  }

  // Where ranks recompute as many blocks as each needs; else empty.
  std::vector<std::int64_t> recomputed_by_rank(const ParallelLayout& layout) const {
    std::vector<std::int64_t> counts;
    if (layout.recompute == Recompute::none || layout.recomputed_layers != fewest_layers) return counts;
    const Shard shard = model_.shard(layout);
    for (std::int32_t rank = 0; rank < layout.pipeline; ++rank) {
      counts.push_back(model_.recomputed_of(layout, shard, rank));
    }
    return counts;
  }

  double mfu(const JudgedLayout& judged, Seconds step) const { return model_.mfu(step, judged.layout.devices()); }

  // US dollars a step; zero without a price.
  double cost(const ParallelLayout& layout, double step) const {
    const double price = options_.price > 0 ? options_.price : model_.machine().device.price;
    return price * static_cast<double>(layout.devices()) * step / seconds_an_hour;
  }
  std::string cost_text(const ParallelLayout& layout, double step) const {
    const double dollars = cost(layout, step);
    return dollars > 0 ? fmt::format("{:.3g}", dollars) : "-";
  }

  std::string ranking_table() const {
    std::vector<std::vector<std::string>> rows{
        {"", "p", "v", "t", "c", "d", "b", "M", "schedule", "ZeRO", "closed", "timeline", "SimGrid", "MFU", "memory"}};
    if (model_.job().network.experts > 0) rows.front()[4] = "c/e";
    int place = 0;
    for (const Ranked& ranked : ranked_) {
      const ParallelLayout& l = ranked.judged.layout;
      const Prediction& prediction = ranked.plan.prediction;
      rows.push_back(
          {std::to_string(++place), std::to_string(l.pipeline), std::to_string(l.virtual_stages),
           std::to_string(l.tensor),
           model_.job().network.experts > 0 ? fmt::format("{}/{}", l.context, l.expert) : std::to_string(l.context),
           std::to_string(l.data), std::to_string(l.microbatch), std::to_string(l.microbatches),
           printable(name(l.schedule), 16), std::to_string(l.zero), to_string(*prediction.closed_form_step),
           to_string(*prediction.timeline_step), prediction.simgrid_step ? to_string(*prediction.simgrid_step) : "-",
           fmt::format("{:.1f} %", 100 * mfu(ranked.judged, best_prediction(ranked))),
           to_string(*std::max_element(prediction.peak_memory.begin(), prediction.peak_memory.end()))});
    }
    return format_table(rows);
  }

  static std::string percent(std::int64_t part, std::int64_t whole) {
    return fmt::format("{:.3g} %", 100 * static_cast<double>(part) / static_cast<double>(whole));
  }

  std::string counts_text() const {
    const LayoutCounts& counts = result_.counts;
    return wrap(fmt::format(
        "{} layouts: {} judged; cut: {} whose computation alone takes longer, {} slower with their micro-batch, order "
        "or stages, {} too large, {} that only overlap less or recompute more",
        with_thousands(counts.points), with_thousands(counts.judged), percent(counts.slower_widths, counts.points),
        percent(counts.slower, counts.points), percent(counts.too_large, counts.points),
        percent(counts.dominated, counts.points)));
  }

  // How the step changes when one property of the machine does: this layout, and the best one there.
  std::string what_if_table() const {
    const JudgedLayout& best = ranked_.front().judged;
    const auto change = [&](std::optional<double> step) {
      return step ? fmt::format("{:+.1f} %", 100 * (*step / best.estimate.time.value() - 1)) : "no fit";
    };
    const auto anew = [&](const WhatIf& what) {
      return what.best ? change(what.best->estimate.time.value()) : "no fit";
    };
    std::vector<std::vector<std::string>> rows{
        {"what if", "x 1/2", "-10 %", "+10 %", "x 2", "1/2 anew", "2 anew", "as"}};
    const std::vector<WhatIf> all = what_if(*space_, best);
    for (auto what = all.begin(); what != all.end(); what += 4) {
      std::string as = "the same";
      if (const auto& other = what[3].best; other && !same_candidate(other->layout, best.layout)) {
        const ParallelLayout& l = other->layout;
        as = fmt::format("p{}v{}t{}c{}d{}b{}", l.pipeline, l.virtual_stages, l.tensor, l.context, l.data, l.microbatch);
      }
      rows.push_back({what->property, change(what[0].same_layout), change(what[1].same_layout),
                      change(what[2].same_layout), change(what[3].same_layout), anew(what[0]), anew(what[3]), as});
    }
    return "Step time when one property of the machine changes, with this layout and planned anew:\n" +
           format_table(rows);
  }

  std::string front_table() const {
    std::vector<std::vector<std::string>> rows{{"devices", "closed form", "memory", "layout"}};
    for (const JudgedLayout& point : result_.front) {
      const ParallelLayout& l = point.layout;
      rows.push_back({std::to_string(l.devices()), to_string(point.estimate.time),
                      to_string(Bytes(point.estimate.memory.total())),
                      fmt::format("p{} v{} t{} c{} d{} b{} {} zero{} {}", l.pipeline, l.virtual_stages, l.tensor,
                                  l.context, l.data, l.microbatch, name(l.schedule), l.zero, name(l.recompute))});
    }
    return "Pareto front of devices, step time and memory:\n" + format_table(rows);
  }

  struct ScalingRow {
    std::int64_t devices = 0, batch = 0;
    JudgedLayout best;
  };

  // The best layout for each number of devices; with --weak the batch grows with them.
  std::vector<ScalingRow> scaling() const {
    std::vector<ScalingRow> rows;
    const std::int64_t batch = model_.job().global_batch, base = options_.scaling.front();
    for (const int devices : options_.scaling) {
      TrainingJob job = model_.job();
      if (options_.weak) {
        if (batch * devices % base != 0) {
          throw bad_input("--weak: {} samples on {} devices do not scale to {}", batch, base, devices);
        }
        job.global_batch = batch * devices / base;
      }
      if (devices > static_cast<int>(cluster_.devices.size())) {
        throw bad_input("--scaling: expected at most the cluster's {} devices, got {}", cluster_.devices.size(),
                        devices);
      }
      const StepModel model(job, model_.machine());
      LayoutChoices choices = space_->choices();
      choices.devices = devices;
      const LayoutSpace space(model, choices);
      const LayoutResult result = search_layouts(space, {.objective = objective_, .keep = 1, .near_misses = 0});
      if (result.best.empty()) throw no_layout_fits(space, network_.name, fmt::format("{} devices", devices));
      rows.push_back({devices, job.global_batch, result.best.front()});
    }
    return rows;
  }

  std::string scaling_table() const {
    std::vector<std::vector<std::string>> rows{
        {"devices", "batch", "closed form", "tokens/s", "efficiency", "MFU", "memory", "USD", "layout"}};
    double first = 0;  // tokens a second and device
    for (const ScalingRow& row : scaling()) {
      const double step = row.best.estimate.time.value();
      const double tokens = static_cast<double>(row.batch * model_.job().sequence) / step;
      const double each = tokens / static_cast<double>(row.devices);
      if (first == 0) first = each;
      const ParallelLayout& l = row.best.layout;
      TrainingJob job = model_.job();
      job.global_batch = row.batch;
      rows.push_back(
          {std::to_string(row.devices), std::to_string(row.batch), to_string(row.best.estimate.time),
           with_thousands(static_cast<long long>(tokens)), fmt::format("{:.1f} %", 100 * each / first),
           fmt::format("{:.1f} %", 100 * StepModel(job, model_.machine()).mfu(row.best.estimate.time, row.devices)),
           to_string(Bytes(row.best.estimate.memory.total())), cost_text(l, step), short_text(l)});
    }
    return fmt::format("{} scaling:\n", options_.weak ? "Weak" : "Strong") + format_table(rows);
  }

  Json judged_json(const JudgedLayout& judged) const {
    Json json{{"text", to_string(judged.layout)},
              {"layout", to_json(judged.layout)},
              {"devices", judged.layout.devices()},
              {"closed_form_step_s", judged.estimate.time.value()},
              {"memory_bytes", judged.estimate.memory.total()},
              {"mfu", mfu(judged, judged.estimate.time)}};
    if (const double dollars = cost(judged.layout, judged.estimate.time.value()); dollars > 0) {
      json["usd_a_step"] = dollars;
    }
    return json;
  }

  const PlanOptions options_;
  const Network& network_;
  const Cluster& cluster_;
  const SearchSpace search_space_;
  const StepModel model_;
  const LayoutObjective objective_;
  std::optional<LayoutSpace> space_;
  LayoutResult result_;
  std::vector<Ranked> ranked_;
};

std::string LayoutPlanning::text() const {
  const Ranked& best = ranked_.front();
  const StepEstimate& estimate = best.judged.estimate;
  std::string out = ranking_table() + "\n" + wrap("best: " + to_string(best.judged.layout));
  std::string terms;
  for (const auto& [name, seconds] : terms_of(estimate)) {
    terms += fmt::format("{}{} {} ({:.3g} %)", terms.empty() ? "" : ", ", name, to_string(Seconds(seconds)),
                         100 * seconds / estimate.time.value());
  }
  out += wrap(fmt::format("closed form {} a step, of which {}", to_string(estimate.time), terms));
  const StageMemory& memory = estimate.memory;
  out += wrap(fmt::format(
      "memory of stage {}, the fullest: weights {}, gradients {}, optimizer {}, activations {}, workspace {}, "
      "reserved {}",
      estimate.worst_rank, to_string(Bytes(memory.weights)), to_string(Bytes(memory.gradients)),
      to_string(Bytes(memory.optimizer_state)), to_string(Bytes(memory.activations)),
      to_string(Bytes(memory.workspace)), to_string(Bytes(memory.reserved))));
  if (const auto counts = recomputed_by_rank(best.judged.layout); !counts.empty()) {
    out += wrap(fmt::format("blocks that recompute, by rank: {}", fmt::join(counts, " ")));
  }
  if (const double dollars = cost(best.judged.layout, best_prediction(best).value()); dollars > 0) {
    out += fmt::format("{:.3g} USD a step\n", dollars);
  }
  if (!result_.near_misses.empty()) out += "\nNear misses:\n";
  for (const JudgedLayout& miss : result_.near_misses) {
    out += wrap(fmt::format("  {}: would take {}, but {}", to_string(miss.layout), to_string(miss.estimate.time),
                            why_not(model_, miss)));
  }
  if (options_.explain) out += "\n" + what_if_table();
  if (options_.pareto) out += "\n" + front_table();
  if (!options_.scaling.empty()) out += "\n" + scaling_table();
  return out + "\n" + counts_text() + "\n" + plan_table(best.plan);
}

Json LayoutPlanning::json() const {
  Json json;
  json["ranked"] = Json::array();
  for (const Ranked& ranked : ranked_) {
    Json entry = judged_json(ranked.judged);
    entry["terms_s"] = Json::object();
    for (const auto& [name, seconds] : terms_of(ranked.judged.estimate)) entry["terms_s"][name] = seconds;
    if (const auto counts = recomputed_by_rank(ranked.judged.layout); !counts.empty()) {
      entry["recomputed_by_rank"] = counts;
    }
    entry["prediction"] = to_json(ranked.plan)["prediction"];
    json["ranked"].push_back(std::move(entry));
  }
  json["near_misses"] = Json::array();
  for (const JudgedLayout& miss : result_.near_misses) {
    Json entry = judged_json(miss);
    entry["verdict"] = why_not(model_, miss);
    json["near_misses"].push_back(std::move(entry));
  }
  const LayoutCounts& counts = result_.counts;
  json["counts"] = {{"points", counts.points}, {"judged", counts.judged},       {"slower_widths", counts.slower_widths},
                    {"slower", counts.slower}, {"too_large", counts.too_large}, {"dominated", counts.dominated}};
  if (options_.pareto) {
    json["front"] = Json::array();
    for (const JudgedLayout& point : result_.front) json["front"].push_back(judged_json(point));
  }
  if (options_.explain) {
    json["what_if"] = Json::array();
    for (const WhatIf& what : what_if(*space_, ranked_.front().judged)) {
      Json entry{{"property", what.property}, {"factor", what.factor}};
      if (what.same_layout) entry["same_layout_step_s"] = *what.same_layout;
      if (what.best) {
        entry["best_layout_step_s"] = what.best->estimate.time.value();
        entry["best_layout"] = to_string(what.best->layout);
      }
      json["what_if"].push_back(std::move(entry));
    }
  }
  if (!options_.scaling.empty()) {
    json["scaling"] = Json::array();
    for (const ScalingRow& row : scaling()) {
      Json entry = judged_json(row.best);
      entry["devices"] = row.devices;
      entry["global_batch"] = row.batch;
      json["scaling"].push_back(std::move(entry));
    }
  }
  return json;
}

// One search for each precision that the user would train in.
class PrecisionPlanning {
 public:
  PrecisionPlanning(const PlanOptions& options, const Network& network, const Cluster& cluster) : options_(options) {
    for (const std::string& precision : options.precisions) {
      PlanOptions alone = options;
      alone.precisions = {precision};
      plannings_.push_back(std::make_unique<LayoutPlanning>(std::move(alone), network, cluster));
    }
  }

  void run() {
    for (const auto& planning : plannings_) planning->search();
    const auto best = std::min_element(plannings_.begin(), plannings_.end(),
                                       [](const auto& a, const auto& b) { return a->score() < b->score(); });
    if (!options_.output.empty()) save_plan((*best)->plan(), options_.output);
    if (options_.json) {
      print_json(json(**best));
    } else {
      print((*best)->text() + comparison(**best));
    }
    if (!options_.output.empty()) note("wrote " + options_.output);
  }

 private:
  Json json(const LayoutPlanning& best) const {
    Json json = best.json();
    json["precision"] = best.precision();
    json["precisions"] = Json::array();
    for (const auto& planning : plannings_) json["precisions"].push_back(planning->precision_json());
    return json;
  }

  std::string comparison(const LayoutPlanning& best) const {
    if (plannings_.size() == 1) return "";
    std::vector<std::vector<std::string>> rows{{"precision", "step", "tokens/s", "memory", "best layout"}};
    for (const auto& planning : plannings_) rows.push_back(planning->precision_row());
    return "\nBest layout in each precision:\n" + format_table(rows) +
           wrap(fmt::format("note: planned in {} for its step alone; whether the network trains as well in it is not "
                            "part of the prediction, and --precision with one name decides",
                            best.precision()));
  }

  const PlanOptions& options_;
  std::vector<std::unique_ptr<LayoutPlanning>> plannings_;
};

}  // namespace

void plan_layouts(const PlanOptions& options, const Network& network, const Cluster& cluster) {
  PrecisionPlanning(options, network, cluster).run();
}

}  // namespace stagecraft
