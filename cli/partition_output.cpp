#include "cli/partition_output.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/advice_output.hpp"
#include "cli/layout_output.hpp"
#include "models/text.hpp"
#include "planner/own_order.hpp"
#include "reports/tables.hpp"
#include "reports/text_width.hpp"

namespace stagecraft {
namespace {

using Rows = std::vector<std::vector<std::string>>;

std::string shown(const std::optional<Seconds>& time) { return time ? to_string(*time) : "-"; }

// Whether equal layouts can be on other devices.
bool is_mixed(const SearchResult& result) { return result.best().cluster.device_types.size() > 1; }

// US dollars a step; zero without prices.
double cost(const Candidate& candidate) { return step_cost(candidate.price, step_of(candidate)); }

// "2x 4-way A100-SXM4-80GB, 1x H100-SXM5-80GB; layers 2x 12, 20": of the stages, in order.
std::string place_text(const Candidate& candidate) {
  std::vector<std::string> runs;
  for (auto at = candidate.stages.begin(); at != candidate.stages.end();) {
    const auto size = [](const LayerRange& range) { return range.last - range.first; };
    const auto end =
        std::find_if(at, candidate.stages.end(), [&](const auto& range) { return size(range) != size(*at); });
    runs.push_back(end - at == 1 ? std::to_string(size(*at)) : fmt::format("{}x {}", end - at, size(*at)));
    at = end;
  }
  const std::string recomputed =
      candidate.recomputed.empty() ? "" : fmt::format("; recompute {}", fmt::join(candidate.recomputed, ", "));
  return fmt::format("{}; layers {}{}", printable(candidate.devices, 1000), join(runs), recomputed);
}

// Within 100 columns without the closed form and the name of recomputation. Memory: of the device that is nearest to
// its limit. On mixed clusters with a line below each plan, of its devices and layers.
std::string ranking_table(const SearchResult& result) {
  const bool by_cost = result.objective == LayoutObjective::cost;
  Rows rows{{"", "plan", by_cost ? "USD" : "closed form", "timeline", "SimGrid", "bubble", "memory", "full"}};
  int place = 0;
  for (const RankedPlan& ranked : result.ranked) {
    const Prediction& prediction = ranked.plan.prediction;
    rows.push_back({std::to_string(++place), to_string(ranked.candidate.layout),
                    by_cost ? cost_text(cost(ranked.candidate)) : shown(prediction.closed_form_step),
                    shown(prediction.timeline_step), shown(prediction.simgrid_step),
                    fmt::format("{:.1f} %", 100 * prediction.bubble), to_string(ranked.candidate.memory.needed),
                    fmt::format("{:.0f} %", 100 * ranked.candidate.memory.share())});
  }
  const auto is_wide = [&] { return longest_line(format_table(rows)) > max_columns; };
  if (is_wide() && !by_cost) {
    for (auto& row : rows) row.erase(row.begin() + 2);
  }
  if (is_wide()) {
    constexpr std::string_view prefix = "recompute=";
    for (auto row = rows.begin() + 1; row != rows.end(); ++row) (*row)[1].erase((*row)[1].find(prefix), prefix.size());
  }
  std::vector<std::string> places(result.ranked.size());
  for (std::size_t i = 0; i < places.size() && is_mixed(result); ++i) {
    places[i] = "on " + place_text(result.ranked[i].candidate);
  }
  return with_lines_below(format_table(rows), places);
}

std::string explanation(const SearchResult& result) {
  std::string text;
  for (std::string_view why = result.why; !why.empty();) {
    const std::size_t end = std::min(why.find('\n'), why.size());
    text += wrap(why.substr(0, end));
    why.remove_prefix(std::min(end + 1, why.size()));
  }
  if (!result.near_misses.empty()) text += "\nNear misses:\n";
  for (const Candidate& miss : result.near_misses) {
    const std::string where = is_mixed(result) ? " on " + place_text(miss) : "";
    text += wrap(fmt::format("  {}{}: {}", to_string(miss.layout), where, miss.verdict));
  }
  if (const double dollars = cost(result.ranked.front().candidate); dollars > 0) {
    text += cost_text(dollars) + " USD a step\n";
  }
  for (const std::string& remark : result.notes) text += wrap("note: " + remark);
  const SearchCounts& counts = result.counts;
  text += fmt::format("\n{} layouts: {} do not fit, {} outclassed, {} partitioned exactly, {} simulated\n",
                      with_thousands(counts.layouts), with_thousands(counts.out_of_memory),
                      with_thousands(counts.outclassed), with_thousands(counts.partitioned),
                      with_thousands(counts.simulated));
  return text;
}

void put_cost(Json& json, double price, Seconds step) {
  if (price > 0) json["usd_a_step"] = step_cost(price, step);
}

Json candidate_json(const Candidate& candidate) {
  const Layout& layout = candidate.layout;
  Json layers = Json::array();
  for (const LayerRange& range : candidate.stages) layers.push_back(range.last - range.first);
  Json json{{"stages", layout.stages},
            {"ranks", layout.ranks},
            {"replicas", layout.replicas},
            {"microbatch", layout.microbatch},
            {"microbatches", layout.microbatches},
            {"schedule", layout.schedule},
            {"recompute", name(layout.recompute)},
            {"zero", layout.zero},
            {"devices", candidate.devices},
            {"layers", layers},
            {"verdict", candidate.verdict}};
  if (!candidate.recomputed.empty()) json["recomputed_by_rank"] = candidate.recomputed;
  return json;
}

std::string times_table(const Plan& plan) {
  Rows rows{{"rank", "device", "computes", "share", "messages", "reduction", "optimizer", "waits", "share"}};
  for (const RankTime& rank : rank_times(plan)) {
    const Seconds step = rank.compute + rank.optimizer + rank.waits;
    rows.push_back({std::to_string(rows.size() - 1), printable(rank.device, 24), to_string(rank.compute),
                    percent(rank.compute / step), to_string(rank.messages), to_string(rank.reduction),
                    to_string(rank.optimizer), to_string(rank.waits), percent(rank.waits / step)});
  }
  return "\nWhere the step of each rank goes, by the timeline; messages and reductions beside the rest:\n" +
         format_table(rows);
}

std::string clusters_table(const PartitionAnswer& answer) {
  const double step = step_of(answer.result.ranked.front().candidate).value();
  Rows rows{{"what if", "devices", "step", "change", "USD", "as"}};
  for (const OtherCluster& other : answer.other_clusters) {
    rows.push_back({other.change, other.step ? devices_text(other.used, other.devices) : std::to_string(other.devices),
                    other.step ? to_string(Seconds(*other.step)) : "-", change(other.step, step),
                    other.step ? cost_text(step_cost(other.price, Seconds(*other.step))) : "-", other.as});
  }
  return "\nStep time on other nodes, planned anew:\n" + format_table(rows);
}

std::vector<ScalingRow> scaling_rows(const PartitionAnswer& answer) {
  std::vector<ScalingRow> rows;
  for (const ScaledPlan& scaled : answer.scaling) {
    ScalingRow& row = rows.emplace_back();
    row.devices = scaled.point.devices;
    row.batch = scaled.point.batch;
    row.below = "none fits";
    if (!scaled.best) continue;
    const Candidate& best = scaled.best->candidate;
    row.step = step_of(best);
    row.used = best.devices_used;
    row.tokens_per_second =
        static_cast<double>(row.batch) * static_cast<double>(scaled.best->plan.batch.sequence) / row.step->value();
    row.memory = best.memory.needed;
    row.dollars = cost(best);
    row.below = fmt::format("{} on {}", to_string(best.layout), place_text(best));
  }
  return rows;
}

std::string front_table(const PartitionAnswer& answer) {
  if (answer.front.empty()) return "";
  Rows rows{{"devices", "timeline", "memory", "full", "plan"}};
  std::vector<std::string> places(answer.front.size());
  for (std::size_t i = 0; i < places.size(); ++i) {
    const Candidate& candidate = answer.front[i].candidate;
    rows.push_back({std::to_string(candidate.devices_used), to_string(*candidate.timeline),
                    to_string(candidate.memory.needed), fmt::format("{:.0f} %", 100 * candidate.memory.share()),
                    to_string(candidate.layout)});
    if (is_mixed(answer.result)) places[i] = "on " + place_text(candidate);
  }
  return "\nPareto front of devices, step time and the fullest device's share of its memory:\n" +
         with_lines_below(format_table(rows), places);
}

std::string advice_text(const PartitionAnswer& answer) {
  std::string scaling = front_table(answer);
  if (!answer.scaling.empty()) scaling += scaling_table(scaling_rows(answer), "step", answer.options.weak);
  if (!answer.options.explain) return scaling;
  const double step = step_of(answer.result.ranked.front().candidate).value();
  std::string text = times_table(answer.result.best()) + what_if_table(answer.what_if, step, step);
  if (!answer.other_clusters.empty()) text += clusters_table(answer);
  return text + scaling;
}

Json times_json(const Plan& plan) {
  Json json = Json::array();
  for (const RankTime& rank : rank_times(plan)) {
    json.push_back({{"device", rank.device},
                    {"compute_s", rank.compute.value()},
                    {"messages_s", rank.messages.value()},
                    {"reduction_s", rank.reduction.value()},
                    {"optimizer_s", rank.optimizer.value()},
                    {"waits_s", rank.waits.value()}});
  }
  return json;
}

Json clusters_json(const std::vector<OtherCluster>& clusters) {
  Json json = Json::array();
  for (const OtherCluster& other : clusters) {
    Json entry{{"change", other.change}, {"devices", other.devices}};
    if (other.step) {
      entry["best_layout_step_s"] = *other.step;
      entry["best_layout"] = other.plan;
      entry["devices_used"] = other.used;
      put_cost(entry, other.price, Seconds(*other.step));
    }
    json.push_back(std::move(entry));
  }
  return json;
}

// By rank, of one device each.
Json memory_json(const Plan& plan) {
  Json json = Json::array();
  for (const RankMemory& memory : rank_memory(plan)) {
    json.push_back({{"needed_bytes", memory.needed.value()}, {"available_bytes", memory.available.value()}});
  }
  return json;
}

Json terms_json(const Breakdown& terms) {
  return {{"compute", terms.compute.value()},     {"imbalance", terms.imbalance.value()},
          {"bubble", terms.bubble.value()},       {"communication", terms.communication.value()},
          {"reduction", terms.reduction.value()}, {"optimizer", terms.optimizer.value()}};
}

Json ranked_json(const RankedPlan& ranked) {
  Json entry = candidate_json(ranked.candidate);
  entry["devices_used"] = ranked.candidate.devices_used;
  put_cost(entry, ranked.candidate.price, step_of(ranked.candidate));
  entry["terms_s"] = terms_json(ranked.candidate.breakdown);
  entry["prediction"] = to_json(ranked.plan)["prediction"];
  entry["device_memory"] = memory_json(ranked.plan);
  return entry;
}

Json scaling_json(const std::vector<ScaledPlan>& scaling) {
  Json json = Json::array();
  for (const ScaledPlan& scaled : scaling) {
    Json entry{{"fits", false}};
    if (scaled.best) {
      entry = ranked_json(*scaled.best);
      entry["on"] = entry["devices"];
      entry.erase("verdict");
      entry["step_s"] = step_of(scaled.best->candidate).value();
    }
    entry["devices"] = scaled.point.devices;
    entry["global_batch"] = scaled.point.batch;
    json.push_back(std::move(entry));
  }
  return json;
}

}  // namespace

std::string to_text(const PartitionAnswer& answer) {
  const Plan& plan = answer.result.best();
  return ranking_table(answer.result) + "\n" + explanation(answer.result) + advice_text(answer) + "\n" +
         plan_table(plan) + order_bound_text(plan);
}

Json to_json(const PartitionAnswer& answer) {
  const SearchResult& result = answer.result;
  Json json;
  json["ranked"] = Json::array();
  for (const RankedPlan& ranked : result.ranked) json["ranked"].push_back(ranked_json(ranked));
  json["near_misses"] = Json::array();
  for (const Candidate& miss : result.near_misses) {
    Json entry = candidate_json(miss);
    if (miss.shortage) {
      entry["shortage"] = {{"stage", miss.shortage->stage.value},
                           {"needed_bytes", miss.shortage->needed.value()},
                           {"available_bytes", miss.shortage->available.value()},
                           {"devices", miss.shortage->devices}};
    }
    json["near_misses"].push_back(std::move(entry));
  }
  json["counts"] = {{"layouts", result.counts.layouts},
                    {"out_of_memory", result.counts.out_of_memory},
                    {"outclassed", result.counts.outclassed},
                    {"partitioned", result.counts.partitioned},
                    {"simulated", result.counts.simulated}};
  json["why"] = result.why;
  json["notes"] = result.notes;
  if (answer.options.explain) {
    json["rank_times"] = times_json(result.best());
    json["what_if"] = what_if_json(answer.what_if);
    json["what_if_nodes"] = clusters_json(answer.other_clusters);
  }
  if (answer.options.pareto) {
    json["front"] = Json::array();
    for (const RankedPlan& ranked : answer.front) {
      Json entry = ranked_json(ranked);
      entry.erase("verdict");
      json["front"].push_back(std::move(entry));
    }
  }
  if (!answer.scaling.empty()) json["scaling"] = scaling_json(answer.scaling);
  if (result.best().schedule.name == "searched") {
    json["order_lower_bound_s"] = order_lower_bound(result.best()).value();
  }
  return json;
}

}  // namespace stagecraft
