#include "cli/layout_output.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/advice_output.hpp"
#include "models/cost/constants.hpp"
#include "models/text.hpp"
#include "planner/own_order.hpp"
#include "reports/framework_config.hpp"
#include "reports/tables.hpp"
#include "reports/text_width.hpp"

namespace stagecraft {
namespace {

using Rows = std::vector<std::vector<std::string>>;

// With the schedule: what tables have room for.
std::string short_text(const ParallelLayout& l) {
  return fmt::format("{} {}", widths_text(l), printable(name(l.schedule), 24));
}

// All but what is overlapped.
std::string long_text(ParallelLayout l) {
  l.overlap_gradients = l.overlap_parameters = l.overlap_tensor = l.overlap_pipeline = false;
  return to_string(l);
}

double tokens_per_second(const TrainingJob& job, Seconds step) {
  return static_cast<double>(job.global_batch * job.sequence) / step.value();
}

// US dollars; zero without a price.
double cost(const LayoutAnswer& answer, const ParallelLayout& layout, Seconds step) {
  return step_cost(answer.model.machine().device.price * static_cast<double>(layout.devices()), step);
}

// Where ranks recompute unlike numbers of blocks; else empty.
std::vector<std::int64_t> recomputed_by_rank(const StepModel& model, const ParallelLayout& layout) {
  std::vector<std::int64_t> counts;
  if (layout.recompute == Recompute::none || layout.recomputed_layers >= 0) return counts;
  const Shard shard = model.shard(layout);
  for (std::int32_t rank = 0; rank < layout.pipeline; ++rank) {
    counts.push_back(model.recomputed_of(layout, shard, rank));
  }
  return counts;
}

std::string ranking_table(const LayoutAnswer& answer) {
  const bool has_experts = answer.model.job().network.experts > 0;
  const bool by_cost = answer.options.objective == "cost";
  Rows rows{{"", "p", "v", "t", has_experts ? "c/e" : "c", "d", "b", "M", "schedule", "ZeRO", "closed", "timeline",
             "SimGrid", by_cost ? "USD" : "MFU", "memory"}};
  for (const PlannedLayout& planned : answer.planned.best) {
    const ParallelLayout& l = planned.judged.layout;
    const Prediction& prediction = planned.plan.prediction;
    rows.push_back(
        {std::to_string(rows.size()), std::to_string(l.pipeline), std::to_string(l.virtual_stages),
         std::to_string(l.tensor), has_experts ? fmt::format("{}/{}", l.context, l.expert) : std::to_string(l.context),
         std::to_string(l.data), std::to_string(l.microbatch), std::to_string(l.microbatches),
         printable(name(l.schedule), 24), std::to_string(l.zero), to_string(*prediction.closed_form_step),
         to_string(*prediction.timeline_step), prediction.simgrid_step ? to_string(*prediction.simgrid_step) : "-",
         by_cost ? cost_text(cost(answer, l, planned.step())) : percent(answer.model.mfu(planned.step(), l.devices())),
         to_string(planned.memory())});
  }
  std::string text = format_table(rows);
  if (answer.planned.too_large > 0) {
    text += fmt::format("left out: {} that would not fit once whole blocks are placed on stages\n",
                        answer.planned.too_large);
  }
  return text;
}

std::string best_text(const LayoutAnswer& answer) {
  const PlannedLayout& best = answer.planned.best.front();
  const StepEstimate& estimate = best.judged.estimate;
  std::string out = wrap("best: " + to_string(best.judged.layout));
  std::string terms;
  for (const auto& [name, seconds] : terms_of(estimate)) {
    terms += fmt::format("{}{} {} ({:.3g} %)", terms.empty() ? "" : ", ", name, to_string(Seconds(seconds)),
                         100 * seconds / estimate.time.value());
  }
  out += wrap(fmt::format("closed form {} a step, of which {}", to_string(estimate.time), terms));
  const StageMemory& memory = estimate.memory;
  out += wrap(fmt::format(
      "memory of rank {}, the fullest, by the closed form {}: weights {}, gradients {}, optimizer {}, activations {}, "
      "workspace {}, reserved {}",
      estimate.worst_rank, to_string(Bytes(memory.total())), to_string(Bytes(memory.weights)),
      to_string(Bytes(memory.gradients)), to_string(Bytes(memory.optimizer_state)),
      to_string(Bytes(memory.activations)), to_string(Bytes(memory.workspace)), to_string(Bytes(memory.reserved))));
  if (const auto counts = recomputed_by_rank(answer.model, best.judged.layout); !counts.empty()) {
    out += wrap(fmt::format("blocks that recompute, by rank: {}", fmt::join(counts, " ")));
  }
  if (const double dollars = cost(answer, best.judged.layout, best.step()); dollars > 0) {
    out += cost_text(dollars) + " USD a step\n";
  }
  return out;
}

std::string near_misses_text(const LayoutAnswer& answer) {
  if (answer.result.near_misses.empty()) return "";
  std::string out = "\nNear misses:\n";
  for (const JudgedLayout& miss : answer.result.near_misses) {
    out += wrap(fmt::format("  {}: would take {}, but {}", to_string(miss.layout), to_string(miss.estimate.time),
                            why_not(answer.model, miss)));
  }
  return out;
}

// A table whose last column, "layout", goes on below itself where there is no room.
std::string with_wrapped_layouts(std::string_view table) {
  const std::size_t column = table.find("layout");
  std::string out;
  while (!table.empty()) {
    const std::size_t end = table.find('\n');
    std::string cell = wrap(table.substr(column, end - column), max_columns - column);
    for (std::size_t at = cell.find('\n'); at + 1 < cell.size(); at = cell.find('\n', at + 1)) {
      cell.insert(at + 1, column, ' ');
    }
    out += std::string(table.substr(0, column)) + cell;
    table.remove_prefix(end + 1);
  }
  return out;
}

std::string front_table(const LayoutAnswer& answer) {
  Rows rows{{"devices", "closed form", "memory", "layout"}};
  for (const JudgedLayout& point : answer.result.front) {
    rows.push_back({std::to_string(point.layout.devices()), to_string(point.estimate.time),
                    to_string(Bytes(point.estimate.memory.total())), long_text(point.layout)});
  }
  return "\nPareto front of devices, step time and memory:\n" + with_wrapped_layouts(format_table(rows));
}

std::vector<ScalingRow> scaling_rows(const LayoutAnswer& answer) {
  std::vector<ScalingRow> rows;
  for (const ScaledLayout& scaled : answer.scaling) {
    ScalingRow& row = rows.emplace_back();
    row.devices = scaled.devices;
    row.batch = scaled.batch;
    if (!scaled.best) continue;
    const JudgedLayout& best = *scaled.best;
    TrainingJob job = answer.model.job();
    job.global_batch = scaled.batch;
    row.step = best.estimate.time;
    row.used = best.layout.devices();
    row.tokens_per_second = tokens_per_second(job, *row.step);
    row.mfu = StepModel(job, answer.model.machine()).mfu(*row.step, row.used);
    row.memory = Bytes(best.estimate.memory.total());
    row.dollars = cost(answer, best.layout, *row.step);
    row.plan = short_text(best.layout);
  }
  return rows;
}

std::string counts_text(const LayoutCounts& counts) {
  const auto part = [&](std::int64_t points) {
    return fmt::format("{:.3g} %", 100 * static_cast<double>(points) / static_cast<double>(counts.points));
  };
  return wrap(fmt::format(
      "{} layouts: {} judged; cut: {} whose computation alone takes longer, {} slower with their micro-batch, order "
      "or stages, {} too large, {} that only overlap less or recompute more",
      with_thousands(counts.points), with_thousands(counts.judged), part(counts.slower_widths), part(counts.slower),
      part(counts.too_large), part(counts.dominated)));
}

Json judged_json(const LayoutAnswer& answer, const ParallelLayout& layout, Seconds closed_form, Seconds step,
                 Bytes memory) {
  Json json{{"text", to_string(layout)},
            {"layout", to_json(layout)},
            {"devices", layout.devices()},
            {"closed_form_step_s", closed_form.value()},
            {"step_s", step.value()},
            {"memory_bytes", memory.value()},
            {"mfu", answer.model.mfu(step, layout.devices())}};
  if (const double dollars = cost(answer, layout, step); dollars > 0) json["usd_a_step"] = dollars;
  return json;
}

// By the closed form alone.
Json judged_json(const LayoutAnswer& answer, const JudgedLayout& judged) {
  const Seconds step = judged.estimate.time;
  return judged_json(answer, judged.layout, step, step, Bytes(judged.estimate.memory.total()));
}

Json planned_json(const LayoutAnswer& answer, const PlannedLayout& planned) {
  const StepEstimate& estimate = planned.judged.estimate;
  return judged_json(answer, planned.judged.layout, estimate.time, planned.step(), planned.memory());
}

Json ranked_json(const LayoutAnswer& answer) {
  Json ranked = Json::array();
  for (const PlannedLayout& planned : answer.planned.best) {
    Json entry = planned_json(answer, planned);
    entry["terms_s"] = Json::object();
    for (const auto& [name, seconds] : terms_of(planned.judged.estimate)) entry["terms_s"][name] = seconds;
    if (const auto counts = recomputed_by_rank(answer.model, planned.judged.layout); !counts.empty()) {
      entry["recomputed_by_rank"] = counts;
    }
    entry["prediction"] = to_json(planned.plan)["prediction"];
    ranked.push_back(std::move(entry));
  }
  return ranked;
}

// How far such predictions were off where others measured.
std::string published_text(const Machine& machine) {
  constexpr int few = 10;
  const PublishedErrors::Of &time = machine.published.step_time, &memory = machine.published.memory;
  const std::string device = printable(machine.device.name);
  if (time.rows < few) {
    return wrap(fmt::format("{} published on '{}' known here: too few to say how far off such predictions are",
                            counted(time.rows, "run"), device));
  }
  const auto of = [](const PublishedErrors::Of& errors) {
    return fmt::format("{}, half within {:g} %, nine in ten within {:g} %", with_thousands(errors.rows), errors.median,
                       errors.nine_in_ten);
  };
  std::string text = fmt::format(
      "published runs on '{}', each predicted with the constants of its framework (here {}'s): step times of {}",
      device, machine.framework_name, of(time));
  if (memory.rows >= few) text += "; memory of " + of(memory);
  return wrap(text);
}

// Who can train what was planned.
std::string targets_text(const Plan& plan) {
  std::vector<std::string> takers, refusals;
  for (const ExportTarget& target : export_targets(plan)) {
    (target.refusal.empty() ? takers : refusals).push_back(std::string(target.name));
    if (!target.refusal.empty()) refusals.back() += " (" + target.refusal + ")";
  }
  if (!takers.empty()) return wrap("exports to " + join(takers));
  return wrap("exports to no other framework: " + join(refusals, "; ") + "; --framework plans what one of them runs");
}

}  // namespace

std::string order_bound_text(const Plan& plan) {
  if (plan.schedule.name != "searched") return "";
  return fmt::format(
      "lower bound {}: no order of these stages computes a step sooner (reductions and optimizer apart)\n",
      to_string(order_lower_bound(plan)));
}

std::string to_text(const LayoutAnswer& answer) {
  std::string out = ranking_table(answer) + "\n" + best_text(answer) + published_text(answer.model.machine()) +
                    targets_text(answer.planned.best.front().plan) + near_misses_text(answer);
  // What is planned anew is compared with the best of all layouts: that of the plan may be second by the closed form.
  if (!answer.what_if.empty()) {
    out += what_if_table(answer.what_if, answer.planned.best.front().judged.estimate.time.value(),
                         answer.result.best.front().estimate.time.value());
  }
  if (!answer.result.front.empty()) out += front_table(answer);
  if (!answer.scaling.empty()) out += scaling_table(scaling_rows(answer), "closed form", answer.options.weak);
  const Plan& plan = answer.planned.best.front().plan;
  return out + "\n" + counts_text(answer.result.counts) + "\n" + plan_table(plan) + order_bound_text(plan);
}

Json to_json(const LayoutAnswer& answer) {
  Json json;
  json["ranked"] = ranked_json(answer);
  json["left_out_too_large"] = answer.planned.too_large;
  json["framework"] = answer.model.machine().framework_name;
  json["published_errors"] = to_json(answer.model.machine().published);
  json["near_misses"] = Json::array();
  for (const JudgedLayout& miss : answer.result.near_misses) {
    Json entry = judged_json(answer, miss);
    entry["verdict"] = why_not(answer.model, miss);
    json["near_misses"].push_back(std::move(entry));
  }
  if (const Plan& plan = answer.planned.best.front().plan; plan.schedule.name == "searched") {
    json["order_lower_bound_s"] = order_lower_bound(plan).value();
  }
  const LayoutCounts& counts = answer.result.counts;
  json["counts"] = {{"points", counts.points}, {"judged", counts.judged},       {"slower_widths", counts.slower_widths},
                    {"slower", counts.slower}, {"too_large", counts.too_large}, {"dominated", counts.dominated}};
  json["exports"] = Json::object();
  for (const ExportTarget& target : export_targets(answer.planned.best.front().plan)) {
    json["exports"][std::string(target.name)] = target.refusal.empty() ? Json(true) : Json(target.refusal);
  }
  if (!answer.result.front.empty()) {
    json["front"] = Json::array();
    for (const JudgedLayout& point : answer.result.front) json["front"].push_back(judged_json(answer, point));
  }
  if (!answer.what_if.empty()) json["what_if"] = what_if_json(answer.what_if);
  if (!answer.scaling.empty()) {
    json["scaling"] = Json::array();
    for (const ScaledLayout& row : answer.scaling) {
      Json entry = row.best ? judged_json(answer, *row.best) : Json{{"fits", false}};
      entry["devices"] = row.devices;
      entry["global_batch"] = row.batch;
      json["scaling"].push_back(std::move(entry));
    }
  }
  return json;
}

std::string precisions_text(const std::vector<LayoutAnswer>& answers, const LayoutAnswer& best) {
  if (answers.size() == 1) return "";
  Rows rows{{"precision", "step", "tokens/s", "memory", "best layout"}};
  for (const LayoutAnswer& answer : answers) {
    const PlannedLayout& planned = answer.planned.best.front();
    const double tokens = tokens_per_second(answer.model.job(), planned.step());
    rows.push_back({answer.precision, to_string(planned.step()), rounded_with_thousands(tokens),
                    to_string(planned.memory()), short_text(planned.judged.layout)});
  }
  return "\nBest layout in each precision:\n" + format_table(rows) +
         wrap(fmt::format("note: planned in {} for its step alone; whether the network trains as well in it is not "
                          "part of the prediction, and --precision with one name decides",
                          best.precision));
}

Json precisions_json(const std::vector<LayoutAnswer>& answers) {
  Json precisions = Json::array();
  for (const LayoutAnswer& answer : answers) {
    Json entry = planned_json(answer, answer.planned.best.front());
    entry["precision"] = answer.precision;
    precisions.push_back(std::move(entry));
  }
  return precisions;
}

}  // namespace stagecraft
