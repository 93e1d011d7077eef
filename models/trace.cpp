#include "models/trace.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "models/files.hpp"
#include "models/statistics.hpp"
#include "models/text.hpp"
#include "models/version.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t max_events = 20'000'000;
constexpr int max_ranks = 65'536;

// One rank's compute in one step.
struct Work {
  double first = std::numeric_limits<double>::max(), last = 0, busy = 0;
};

struct Bubbles {
  double idle_share = 0, span_rate = 0;
};

Bubbles bubbles_of_step(const std::map<int, Work>& ranks) {
  double begin = std::numeric_limits<double>::max(), end = 0, busy = 0;
  Work longest;
  double longest_span = 0;
  for (const auto& [rank, work] : ranks) {
    begin = std::min(begin, work.first);
    end = std::max(end, work.last);
    busy += work.busy;
    if (work.last - work.first > longest_span) longest_span = work.last - work.first, longest = work;
  }
  const double total = (end - begin) * static_cast<double>(ranks.size());
  Bubbles bubbles;
  if (total > 0) bubbles.idle_share = std::max(0.0, 1 - busy / total);
  if (longest_span > 0) bubbles.span_rate = std::max(0.0, 1 - longest.busy / longest_span);
  return bubbles;
}

template <class T>
std::vector<double> values_of(const std::vector<T>& quantities) {
  std::vector<double> values;
  values.reserve(quantities.size());
  for (const T& quantity : quantities) values.push_back(quantity.value());
  return values;
}

TraceEvent event_from_json(const JsonValue& value, const Trace& trace) {
  const std::size_t fields = trace.shards > 1 ? 8 : 7;
  const auto cells = value.array(fields);
  if (cells.size() != fields) {
    throw value.expected(
        fmt::format("[step, replica, rank, action, start_s, end_s, bytes{}]", trace.shards > 1 ? ", shard" : ""));
  }
  TraceEvent event;
  event.step = static_cast<int>(cells[0].integer(0, 1'000'000'000));
  event.replica = static_cast<int>(cells[1].integer(0, trace.replicas - 1));
  event.rank = RankId{static_cast<std::int32_t>(cells[2].integer(0, trace.ranks - 1))};
  const auto action = parse_action(cells[3].string());
  if (!action) throw cells[3].expected("an action such as \"2F0\"");
  if (action->stage.value >= trace.stages) throw cells[3].expected(fmt::format("a stage below {}", trace.stages));
  if (action->microbatch.value >= trace.microbatches) {
    throw cells[3].expected(fmt::format("a micro-batch below {}", trace.microbatches));
  }
  event.action = *action;
  event.start = Seconds(cells[4].number(-1e9, 1e12));
  event.end = Seconds(cells[5].number(event.start.value(), 1e12));
  event.bytes = Bytes(cells[6].number(0, 1e30));
  if (fields > 7) event.shard = static_cast<int>(cells[7].integer(0, trace.shards - 1));
  return event;
}

}  // namespace

std::string Trace::row_name(int row) const {
  const int of_replica = shards * ranks;
  std::string name = fmt::format("rank {}", row % ranks);
  if (shards > 1) name += fmt::format(".{}", row % of_replica / ranks);
  return replicas > 1 ? fmt::format("{} / {}", row / of_replica, name) : name;
}

TraceSummary summarize(const Trace& trace) {
  TraceSummary summary;
  summary.step = Seconds(median(values_of(trace.step_times)));

  std::map<std::pair<StageId, ActionKind>, std::vector<double>> durations;
  std::map<int, std::map<int, Work>> steps;  // step -> row
  for (const TraceEvent& event : trace.events) {
    durations[{event.action.stage, event.action.kind}].push_back((event.end - event.start).value());
    if (!is_compute(event.action.kind)) continue;
    Work& work = steps[event.step][trace.row_of(event)];
    work.first = std::min(work.first, event.start.value());
    work.last = std::max(work.last, event.end.value());
    work.busy += (event.end - event.start).value();
  }
  std::vector<double> idle, span;
  for (const auto& [step, ranks] : steps) {
    const Bubbles bubbles = bubbles_of_step(ranks);
    idle.push_back(bubbles.idle_share);
    span.push_back(bubbles.span_rate);
  }
  if (!idle.empty()) {
    summary.bubble = median(idle);
    summary.span_bubble = median(span);
  }
  for (const auto& [key, values] : durations) {
    summary.kinds.push_back({key.first, key.second, Seconds(median(values)), Seconds(percentile(values, 0.1)),
                             Seconds(percentile(values, 0.9)), static_cast<int>(values.size())});
  }
  return summary;
}

Trace trace_from_json(const JsonValue& value) {
  JsonObject object = value.object();
  object.required("format").one_of<int>(std::array{std::pair<std::string_view, int>{"stagecraft-trace", 1}});
  Trace trace;
  trace.source = object.required("source").string();
  const auto text = [&](std::string_view name, std::string& field) {
    if (const auto found = object.optional(name)) field = found->string();
  };
  text("tool_version", trace.tool_version);
  text("machine", trace.machine);
  text("date", trace.date);
  text("plan_digest", trace.plan_digest);
  text("network", trace.network);
  text("schedule", trace.schedule);
  trace.stages = static_cast<int>(object.required("stages").integer(1, max_ranks));
  trace.microbatches = static_cast<int>(object.required("microbatches").integer(1, 1 << 20));
  trace.ranks = static_cast<int>(object.required("ranks").integer(1, max_ranks));
  trace.replicas = static_cast<int>(object.required("replicas").integer(1, max_ranks));
  if (const auto shards = object.optional("shards")) trace.shards = static_cast<int>(shards->integer(1, max_ranks));
  trace.tokens_per_step = object.required("tokens_per_step").integer(0, std::int64_t{1} << 60);
  const JsonValue stage_ranks = object.required("stage_ranks");
  for (const JsonValue& rank : stage_ranks.array(max_ranks)) {
    trace.stage_ranks.push_back(RankId{static_cast<std::int32_t>(rank.integer(0, trace.ranks - 1))});
  }
  if (trace.stage_ranks.size() != static_cast<std::size_t>(trace.stages)) {
    throw stage_ranks.expected(counted(trace.stages, "rank") + ", one a stage");
  }
  for (const JsonValue& warning : object.required("warnings").array(1000))
    trace.warnings.push_back(warning.string(10'000));
  for (const JsonValue& time : object.required("step_times_s").array(max_events)) {
    trace.step_times.emplace_back(time.number(0, 1e12));
  }
  for (const JsonValue& loss : object.required("losses").array(max_events)) {
    // A diverged run has losses that are no number; JSON has null for them.
    trace.losses.push_back(loss.json().is_null() ? std::nan("") : loss.number());
  }
  for (const JsonValue& peak : object.required("peak_memory_bytes").array(std::size_t{max_ranks} * max_ranks)) {
    trace.peak_memory.emplace_back(peak.number(0, 1e30));
  }
  if (const auto clocks = object.optional("clock_hz")) {
    for (const JsonValue& clock : clocks->array(std::size_t{max_ranks} * max_ranks)) {
      trace.clocks.push_back(clock.number(0, 1e12));
    }
    if (!trace.clocks.empty() && trace.clocks.size() != static_cast<std::size_t>(trace.rows())) {
      throw clocks->expected(counted(trace.rows(), "clock") + ", one a device");
    }
  }
  object.ignore("event_fields");
  const JsonValue events = object.required("events");
  for (const JsonValue& event : events.array(max_events)) trace.events.push_back(event_from_json(event, trace));
  object.finish();
  return trace;
}

Json to_json(const Trace& trace) {
  Json json;
  json["format"] = "stagecraft-trace";
  json["source"] = trace.source;
  json["tool_version"] = trace.tool_version.empty() ? version : trace.tool_version;
  json["machine"] = trace.machine;
  json["date"] = trace.date;
  json["plan_digest"] = trace.plan_digest;
  json["network"] = trace.network;
  json["schedule"] = trace.schedule;
  json["stages"] = trace.stages;
  json["microbatches"] = trace.microbatches;
  json["ranks"] = trace.ranks;
  json["replicas"] = trace.replicas;
  if (trace.shards > 1) json["shards"] = trace.shards;
  json["tokens_per_step"] = trace.tokens_per_step;
  json["stage_ranks"] = Json::array();
  for (const RankId rank : trace.stage_ranks) json["stage_ranks"].push_back(rank.value);
  json["warnings"] = trace.warnings;
  json["step_times_s"] = values_of(trace.step_times);
  json["losses"] = Json::array();
  for (const double loss : trace.losses) json["losses"].push_back(std::isfinite(loss) ? Json(loss) : Json());
  json["peak_memory_bytes"] = values_of(trace.peak_memory);
  if (!trace.clocks.empty()) json["clock_hz"] = trace.clocks;
  json["event_fields"] = {"step", "replica", "rank", "action", "start_s", "end_s", "bytes"};
  if (trace.shards > 1) json["event_fields"].push_back("shard");
  Json events = Json::array();
  for (const TraceEvent& event : trace.events) {
    Json cells = {event.step,          event.replica,     event.rank.value,   to_string(event.action),
                  event.start.value(), event.end.value(), event.bytes.value()};
    if (trace.shards > 1) cells.push_back(event.shard);
    events.push_back(std::move(cells));
  }
  json["events"] = std::move(events);
  return json;
}

Trace load_trace(const std::filesystem::path& path) {
  const Json document = parse_json(read_file(path, 2ULL << 30), path.string());
  return trace_from_json(JsonValue(document, path.string()));
}

void save_trace(const Trace& trace, const std::filesystem::path& path) {
  write_file(path, to_json(trace).dump() + "\n");
}

}  // namespace stagecraft
