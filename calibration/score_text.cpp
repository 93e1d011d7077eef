#include "calibration/score_text.hpp"

#include <map>
#include <nlohmann/json.hpp>

#include "models/text.hpp"

namespace stagecraft {
namespace {

using Table = std::vector<std::vector<std::string>>;

constexpr std::size_t longest_name = 24;  // of a model, in tables

std::string percent(double value) { return fmt::format("{:.1f}", value); }

std::string times(std::span<const SourceScore> scores) {
  Table table = {{"step time, errors in %", "rows", "skipped", "MAPE", "median", "worst", "bias", "rank", "baseline"}};
  for (const SourceScore& s : scores) {
    if (s.time.rows == 0) continue;
    const std::string floor = s.mfu_floor > 0 ? fmt::format(", MFU >= {:.0f} %", 100 * s.mfu_floor) : "";
    table.push_back({s.source + floor, fmt::format("{}", s.time.rows), fmt::format("{}", s.skipped.size()),
                     percent(s.time.mape_pct), percent(s.time.median_pct), percent(s.time.worst_pct),
                     percent(s.time.bias_pct), fmt::format("{:.3f}", s.rank_correlation),
                     percent(s.baseline.mape_pct)});
  }
  return table.size() > 1 ? format_table(table) : "";
}

std::string plans(std::span<const SourceScore> scores) {
  Table table = {{"choice of plan", "groups", "median regret %", "mean %", "worst %", "rank correlation"}};
  for (const SourceScore& s : scores) {
    if (!s.plans) continue;
    table.push_back({s.source, fmt::format("{}", s.plans->groups), percent(s.plans->median_regret_pct),
                     percent(s.plans->mean_regret_pct), percent(s.plans->worst_regret_pct),
                     fmt::format("{:.3f}", s.plans->rank_correlation)});
  }
  return table.size() > 1 ? "\n" + format_table(table) : "";
}

std::string memory(std::span<const SourceScore> scores) {
  Table table = {{"memory, errors in %", "rows", "MAPE", "median", "worst", "bias"}};
  Table fits = {{"out of memory or not", "rows", "right %", "missed", "false alarms"}};
  for (const SourceScore& s : scores) {
    if (s.memory) {
      table.push_back({s.source, fmt::format("{}", s.memory->rows), percent(s.memory->mape_pct),
                       percent(s.memory->median_pct), percent(s.memory->worst_pct), percent(s.memory->bias_pct)});
    }
    if (s.fits) {
      fits.push_back({s.source, fmt::format("{}", s.fits->rows), percent(100.0 * s.fits->right / s.fits->rows),
                      fmt::format("{}", s.fits->missed), fmt::format("{}", s.fits->false_alarms)});
    }
  }
  return (table.size() > 1 ? "\n" + format_table(table) : "") + (fits.size() > 1 ? "\n" + format_table(fits) : "");
}

std::string skipped(std::span<const SourceScore> scores) {
  Table table = {{"skipped", "rows", "because"}};
  for (const SourceScore& s : scores) {
    std::map<std::string, int> reasons;
    for (const SkippedRow& row : s.skipped) ++reasons[row.reason];
    for (const auto& [reason, rows] : reasons) table.push_back({s.source, fmt::format("{}", rows), printable(reason)});
  }
  return table.size() > 1 ? "\n" + format_table(table) : "";
}

std::string parts_text(std::span<const SourceScore> scores, const char* heading, std::vector<Part> SourceScore::*by) {
  Table table = {{"step time, errors in %", heading, "rows", "MAPE", "median", "worst", "bias"}};
  for (const SourceScore& s : scores) {
    for (const Part& part : s.*by) {
      table.push_back({s.source, printable(part.name, longest_name), fmt::format("{}", part.time.rows),
                       percent(part.time.mape_pct), percent(part.time.median_pct), percent(part.time.worst_pct),
                       percent(part.time.bias_pct)});
    }
  }
  return table.size() > 1 ? "\n" + format_table(table) : "";
}

std::string groups_text(std::span<const SourceScore> scores) {
  Table table = {{"choice of plan", "model", "devices", "tokens", "batch", "rows", "regret %", "rank"}};
  for (const SourceScore& s : scores) {
    if (!s.plans) continue;
    for (const PlanGroup& group : s.plans->by_group) {
      table.push_back({s.source, printable(group.model, longest_name), fmt::format("{}", group.devices),
                       fmt::format("{}", group.sequence), fmt::format("{}", group.batch), fmt::format("{}", group.rows),
                       percent(group.regret_pct), fmt::format("{:.3f}", group.rank_correlation)});
    }
  }
  return table.size() > 1 ? "\n" + format_table(table) : "";
}

Json groups_json(const std::vector<PlanGroup>& groups) {
  Json json = Json::array();
  for (const PlanGroup& group : groups) {
    json.push_back({{"model", group.model},
                    {"devices", group.devices},
                    {"sequence", group.sequence},
                    {"global_batch", group.batch},
                    {"rows", group.rows},
                    {"regret_pct", group.regret_pct},
                    {"rank_correlation", group.rank_correlation}});
  }
  return json;
}

void add(Json& json, const ErrorScore& score) {
  json["mape_pct"] = score.mape_pct;
  json["median_pct"] = score.median_pct;
  json["worst_pct"] = score.worst_pct;
  json["bias_pct"] = score.bias_pct;
}

Json with_rows(const ErrorScore& score) {
  Json json = {{"rows", score.rows}};
  add(json, score);
  return json;
}

Json parts(const std::vector<Part>& parts) {
  Json json = Json::object();
  for (const Part& part : parts) json[part.name] = with_rows(part.time);
  return json;
}

Json terms(const StepTerms& t) {
  return {{"compute_s", t.compute},     {"recompute_s", t.recompute}, {"bubble_s", t.bubble},   {"tensor_s", t.tensor},
          {"pipeline_s", t.pipeline},   {"data_s", t.data},           {"context_s", t.context}, {"expert_s", t.expert},
          {"optimizer_s", t.optimizer}, {"other_s", t.other}};
}

Json memory(const StageMemory& m) {
  return {{"weights_bytes", m.weights},           {"gradients_bytes", m.gradients},
          {"optimizer_bytes", m.optimizer_state}, {"activations_bytes", m.activations},
          {"workspace_bytes", m.workspace},       {"reserved_bytes", m.reserved}};
}

Json line(const Replayed& row, double floor) {
  const Measurement& m = *row.measurement;
  constexpr std::string_view outcomes[] = {"ok", "oom", "failed"};
  Json json = {{"id", m.id},
               {"model", m.model},
               {"device", m.device},
               {"devices", m.layout.devices()},
               {"framework", m.framework},
               {"fabric", m.fabric},
               {"precision", name(m.job.precision)},
               {"sequence", m.job.sequence},
               {"layout", to_string(m.layout)},
               {"status", outcomes[static_cast<std::size_t>(m.status)]},
               {"predicted_s", row.estimate.time.value()},
               {"baseline_s", row.baseline_s},
               {"predicted_memory_bytes", row.memory_bytes},
               {"predicted_to_fit", row.estimate.fits},
               {"worst_rank", row.estimate.worst_rank},
               {"memory", memory(row.estimate.memory)},
               {"terms", terms(row.estimate.terms)}};
  if (row.time_error) {
    json["measured_s"] = *m.time_s;
    json["error_pct"] = 100 * *row.time_error;
    json["mfu_pct"] = 100 * row.mfu;
    json["scored"] = row.mfu >= floor;
  }
  if (row.memory_error) {
    json["measured_memory_bytes"] = *m.memory_bytes;
    json["memory_error_pct"] = 100 * *row.memory_error;
  }
  return json;
}

Json source(const SourceScore& s) {
  Json json = {{"source", s.source}, {"rows", s.time.rows}, {"skipped", Json::array()}};
  for (const SkippedRow& row : s.skipped) json["skipped"].push_back({{"id", row.id}, {"reason", row.reason}});
  add(json, s.time);
  json["rank_correlation"] = s.rank_correlation;
  json["baseline"] = with_rows(s.baseline);
  if (s.mfu_floor > 0) {
    json["mfu_floor_pct"] = 100 * s.mfu_floor;
    json["below_floor"] = with_rows(s.below_floor);
  }
  json["by_precision"] = parts(s.by_precision);
  json["by_model"] = parts(s.by_model);
  json["by_devices"] = parts(s.by_devices);
  if (s.plans) {
    json["plans"] = {{"groups", s.plans->groups},
                     {"median_regret_pct", s.plans->median_regret_pct},
                     {"mean_regret_pct", s.plans->mean_regret_pct},
                     {"worst_regret_pct", s.plans->worst_regret_pct},
                     {"rank_correlation", s.plans->rank_correlation},
                     {"by_group", groups_json(s.plans->by_group)}};
  }
  if (s.memory) json["memory"] = with_rows(*s.memory);
  if (s.fits) {
    json["out_of_memory"] = {{"rows", s.fits->rows},
                             {"right", s.fits->right},
                             {"right_pct", 100.0 * s.fits->right / s.fits->rows},
                             {"missed", s.fits->missed},
                             {"false_alarms", s.fits->false_alarms}};
  }
  json["predictions"] = Json::array();
  for (const Replayed& row : s.rows) json["predictions"].push_back(line(row, s.mfu_floor));
  return json;
}

}  // namespace

std::string to_text(std::span<const SourceScore> scores) {
  return times(scores) + plans(scores) + memory(scores) + skipped(scores);
}

std::vector<MicrobenchmarkScore> scores_of(const Microbenchmarks& measured, const Presets& presets) {
  constexpr std::string_view kernels[] = {"products", "attention forward", "attention backward"};
  constexpr std::string_view collectives[] = {"all-reduce", "all-gather", "reduce-scatter"};
  std::map<std::string, std::vector<double>> errors;
  for (const KernelMeasurement& kernel : measured.kernels) {
    errors[fmt::format("{} {}", kernel.device, kernels[static_cast<std::size_t>(kernel.kind)])].push_back(
        100 * (ratio(kernel, presets) - 1));
  }
  for (const CollectiveMeasurement& collective : measured.collectives) {
    errors[fmt::format("{} {}{}{}", collective.device, collectives[static_cast<std::size_t>(collective.kind)],
                       collective.fabric.empty() ? "" : ", ", collective.fabric)]
        .push_back(100 * (ratio(collective, presets) - 1));
  }
  std::vector<MicrobenchmarkScore> scores;
  for (const auto& [what, all] : errors) scores.push_back({what, score(all)});
  return scores;
}

std::string to_text(std::span<const MicrobenchmarkScore> scores) {
  Table table = {{"kernels and collectives, errors in %", "rows", "MAPE", "median", "worst", "bias"}};
  for (const MicrobenchmarkScore& s : scores) {
    table.push_back({s.what, fmt::format("{}", s.time.rows), percent(s.time.mape_pct), percent(s.time.median_pct),
                     percent(s.time.worst_pct), percent(s.time.bias_pct)});
  }
  return table.size() > 1 ? "\n" + format_table(table) : "";
}

Json to_json(std::span<const MicrobenchmarkScore> scores) {
  Json json = Json::array();
  for (const MicrobenchmarkScore& s : scores) {
    json.push_back(with_rows(s.time));
    json.back()["what"] = s.what;
  }
  return json;
}

std::string details_text(std::span<const SourceScore> scores) {
  return parts_text(scores, "model", &SourceScore::by_model) + parts_text(scores, "devices", &SourceScore::by_devices) +
         parts_text(scores, "precision", &SourceScore::by_precision) + groups_text(scores);
}

Json to_json(std::span<const SourceScore> scores) {
  Json json = {{"format", "stagecraft-validation"}, {"sources", Json::array()}};
  for (const SourceScore& score : scores) json["sources"].push_back(source(score));
  return json;
}

}  // namespace stagecraft
