#include "cli/layout_output.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "models/cost/constants.hpp"
#include "models/text.hpp"
#include "planner/own_order.hpp"
#include "reports/tables.hpp"
#include "reports/text_width.hpp"

namespace stagecraft {
namespace {

using Rows = std::vector<std::vector<std::string>>;

constexpr double seconds_an_hour = 3600;

// "p8v1t4c1d16b2".
std::string widths_text(const ParallelLayout& l) {
  return fmt::format("p{}v{}t{}c{}d{}b{}", l.pipeline, l.virtual_stages, l.tensor, l.context, l.data, l.microbatch);
}

// With the schedule: what tables have room for.
std::string short_text(const ParallelLayout& l) {
  return fmt::format("{} {}", widths_text(l), printable(name(l.schedule), 24));
}

// All but what is overlapped.
std::string long_text(ParallelLayout l) {
  l.overlap_gradients = l.overlap_parameters = l.overlap_tensor = l.overlap_pipeline = false;
  return to_string(l);
}

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

double tokens_per_second(const TrainingJob& job, Seconds step) {
  return static_cast<double>(job.global_batch * job.sequence) / step.value();
}

// US dollars; zero without a price.
double cost(const LayoutAnswer& answer, const ParallelLayout& layout, Seconds step) {
  const double price = answer.options.price > 0 ? answer.options.price : answer.model.machine().device.price;
  return price * static_cast<double>(layout.devices()) * step.value() / seconds_an_hour;
}

std::string cost_text(double dollars) {
  if (!(dollars > 0)) return "-";
  return dollars < 100 ? fmt::format("{:#.3g}", dollars) : rounded_with_thousands(dollars);
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

// How the step changes when one property of the machine does: this layout, and the best one there.
std::string what_if_table(const LayoutAnswer& answer) {
  const JudgedLayout& best = answer.planned.best.front().judged;
  // Of all layouts: the one of the plan may be second by the closed form.
  const double best_time = answer.result.best.front().estimate.time.value();
  const auto change = [](std::optional<double> step, double from) {
    return step ? fmt::format("{:+.1f} %", 100 * (*step / from - 1)) : "no fit";
  };
  const auto same = [&](const WhatIf& what) { return change(what.same_layout, best.estimate.time.value()); };
  const auto anew = [&](const WhatIf& what) {
    return what.best ? change(what.best->estimate.time.value(), best_time) : "no fit";
  };
  Rows rows{{"what if", "x 1/2", "-10 %", "+10 %", "x 2", "1/2 anew", "2 anew", "as"}};
  for (auto what = answer.what_if.begin(); what != answer.what_if.end(); what += 4) {
    std::string as = "the same";
    if (const auto& other = what[3].best; other && !same_candidate(other->layout, best.layout)) {
      as = widths_text(other->layout);
    }
    rows.push_back(
        {what->property, same(what[0]), same(what[1]), same(what[2]), same(what[3]), anew(what[0]), anew(what[3]), as});
  }
  return "\nStep time when one property of the machine changes, with this layout and planned anew:\n" +
         format_table(rows);
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

std::string scaling_table(const LayoutAnswer& answer) {
  Rows rows{{"devices", "batch", "closed form", "tokens/s", "efficiency", "MFU", "memory", "USD", "layout"}};
  double first = 0;  // tokens a second and device
  for (const ScaledLayout& row : answer.scaling) {
    if (!row.best) {
      rows.push_back(
          {std::to_string(row.devices), std::to_string(row.batch), "-", "-", "-", "-", "-", "-", "none fits"});
      continue;
    }
    const JudgedLayout& best = *row.best;
    TrainingJob job = answer.model.job();
    job.global_batch = row.batch;
    const Seconds step = best.estimate.time;
    const double tokens = tokens_per_second(job, step);
    const std::int64_t used = best.layout.devices();
    const double each = tokens / static_cast<double>(used);
    if (first == 0) first = each;
    // By cost or memory fewer may be the best.
    const std::string devices = used == row.devices ? std::to_string(used) : fmt::format("{} of {}", used, row.devices);
    rows.push_back({devices, std::to_string(row.batch), to_string(step), rounded_with_thousands(tokens),
                    percent(each / first), percent(StepModel(job, answer.model.machine()).mfu(step, used)),
                    to_string(Bytes(best.estimate.memory.total())), cost_text(cost(answer, best.layout, step)),
                    short_text(best.layout)});
  }
  return fmt::format("\n{} scaling:\n", answer.options.weak ? "Weak" : "Strong") + format_table(rows);
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

Json what_if_json(const std::vector<WhatIf>& all) {
  Json json = Json::array();
  for (const WhatIf& what : all) {
    Json entry{{"property", what.property}, {"factor", what.factor}};
    if (what.same_layout) entry["same_layout_step_s"] = *what.same_layout;
    if (what.best) {
      entry["best_layout_step_s"] = what.best->estimate.time.value();
      entry["best_layout"] = to_string(what.best->layout);
    }
    json.push_back(std::move(entry));
  }
  return json;
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
                    near_misses_text(answer);
  if (!answer.what_if.empty()) out += what_if_table(answer);
  if (!answer.result.front.empty()) out += front_table(answer);
  if (!answer.scaling.empty()) out += scaling_table(answer);
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
