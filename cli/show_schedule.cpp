#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.hpp"
#include "cli/console.hpp"
#include "cli/schedule_options.hpp"
#include "models/files.hpp"
#include "models/schedule/checker.hpp"
#include "models/schedule/frameworks.hpp"
#include "models/schedule/lower_bound.hpp"
#include "models/schedule/torch_csv.hpp"
#include "reports/schedule_comparison.hpp"
#include "reports/svg.hpp"
#include "reports/tables.hpp"

namespace stagecraft {
namespace {

enum class Format { grid, svg, torch_csv, json };
constexpr std::array formats{std::pair<std::string_view, Format>{"grid", Format::grid},
                             std::pair<std::string_view, Format>{"svg", Format::svg},
                             std::pair<std::string_view, Format>{"torch-csv", Format::torch_csv},
                             std::pair<std::string_view, Format>{"json", Format::json}};

struct ShowScheduleOptions {
  std::string name;
  ScheduleOptions schedule;
  int group = 0, slices = 1;
  bool both_directions = false;
  std::string format = "grid";
  bool json = false;
  bool communication = false;
  std::size_t columns = 100;
};

// What is shown, and the shape that it was generated with, if it was.
struct Shown {
  ComputeSchedule schedule;
  std::optional<ScheduleShape> shape;
};

// 1 for an unknown name, which make_schedule() complains about.
int natural_stages_per_rank(std::string_view name, const ScheduleShape& shape) {
  const auto& kinds = schedule_kinds();
  const auto kind = std::find_if(kinds.begin(), kinds.end(), [&](const auto& each) { return each.name == name; });
  return kind == kinds.end() ? 1 : fewest_stages_per_rank(*kind, shape);
}

bool is_file(std::string_view name) { return name.ends_with(".csv") || name.ends_with(".json"); }

// Options that say which schedule to make.
void refuse_options_of_files(const CLI::App& command, const std::string& file) {
  refuse_options(command,
                 {"--ranks", "--stages-per-rank", "--microbatches", "--group", "--slices", "--both-directions"},
                 fmt::format("on {}, which says it itself: expected the name of a schedule with it", printable(file)));
}

Shown load(const ShowScheduleOptions& options) {
  if (options.name.ends_with(".csv")) return {from_torch_csv(read_file(options.name), options.name), std::nullopt};
  if (options.name.ends_with(".json")) return {load_plan(options.name).schedule, std::nullopt};
  if (options.both_directions && options.name != "searched") {
    throw bad_input("--both-directions: expected schedule 'searched', got '{}'", printable(options.name));
  }
  ScheduleOptions chosen = options.schedule;
  if (!chosen.stages_per_rank) chosen.stages_per_rank = natural_stages_per_rank(options.name, chosen.shape());
  ScheduleShape shape = chosen.shape();
  shape.group = options.group;
  shape.slices = options.slices;
  shape.both_directions = options.both_directions;
  return {make_schedule(options.name, shape), shape};
}

Json spans_json(const std::vector<ClockSpan>& spans) {
  Json row = Json::array();
  for (const ClockSpan& span : spans) row.push_back({span.start, span.end});
  return row;
}

Json to_json(const Shown& shown, const StageTimes& times, const ClockedSchedule& clock) {
  const ComputeSchedule& schedule = shown.schedule;
  Json json = {{"name", schedule.name}, {"stages", schedule.stages}, {"microbatches", schedule.microbatches}};
  if (schedule.slices > 1) json["slices"] = schedule.slices;
  if (schedule.forward_only) json["forward_only"] = true;
  if (schedule.updates != WeightUpdates::synchronous) json["update_group"] = schedule.update_group;
  json["ranks"] = Json::array();
  json["spans"] = Json::array();
  for (std::size_t rank = 0; rank < schedule.ranks.size(); ++rank) {
    Json row = Json::array();
    for (const Action& action : schedule.ranks[rank]) row.push_back(to_string(action) + (action.overlapped ? "&" : ""));
    json["ranks"].push_back(std::move(row));
    json["spans"].push_back(spans_json(clock.spans[rank]));
  }
  json["times"] = {
      {"forward", times.forward}, {"backward_input", times.backward_input}, {"backward_weight", times.backward_weight}};
  json["makespan"] = clock.makespan;
  json["idle_share"] = clock.idle_share();
  json["zero_bubble_rate"] = clock.span_bubble();
  json["in_flight"] = peak_in_flight_by_stage(schedule);
  json["in_flight_by_rank"] = peak_in_flight_by_rank(schedule);
  json["in_flight_by_rank_until_input_gradient"] = peak_in_flight_by_rank(schedule, KeptUntil::input_gradient);
  if (!shown.shape) return json;
  if (const auto arguments = megatron_arguments(schedule.name, *shown.shape); !arguments.empty()) {
    json["megatron"] = arguments;
  }
  if (const auto ranks = deepspeed_instructions(schedule.name, *shown.shape); !ranks.empty()) json["deepspeed"] = ranks;
  return json;
}

// Schedules with a memory limit of their own keep to --memory by their own count.
bool plans_with_memory(std::string_view name) {
  return name == "zb-1p" || name == "zb-2p" || name == "zb-v-auto" || name == "searched";
}

void check_memory(const ShowScheduleOptions& options, const Shown& shown) {
  const double memory = options.schedule.memory;
  if (memory <= 0 || plans_with_memory(shown.schedule.name)) return;
  const double stages_per_rank = shown.schedule.stages / static_cast<double>(shown.schedule.ranks.size());
  const int limit = static_cast<int>(memory * std::max(stages_per_rank, 1.0) * shown.schedule.slices);
  const auto faults = check_in_flight(shown.schedule, limit);
  if (faults.empty()) return;
  throw Error(ErrorKind::check_failed, fmt::format("schedule '{}': {}\n{}", shown.schedule.name, faults.front().message,
                                                   format_grid(shown.schedule, faults)));
}

bool wants_colour() { return ::isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr; }

void show_schedule(const ShowScheduleOptions& options) {
  const Format format = options.json ? Format::json : choose<Format>("--format", options.format, formats);
  const Shown shown = load(options);
  const ComputeSchedule& schedule = shown.schedule;
  const StageTimes& times = options.schedule.times;
  const double message = options.schedule.message;
  const auto clock = [&] {
    return clock_schedule(schedule, std::vector(static_cast<std::size_t>(schedule.stages), times), message);
  };
  check_memory(options, shown);
  switch (format) {
    case Format::grid:
      print(schedule_table(schedule, times, message, {.colour = wants_colour(), .columns = options.columns}));
      if (schedule.name == "searched" && shown.shape) {
        print(
            fmt::format("lower bound {:.5g}: no order of these stages on these ranks within this memory ends sooner\n",
                        lower_bound(order_problem(*shown.shape, schedule))));
      }
      return;
    case Format::svg: {
      SvgOptions svg;
      svg.title = fmt::format("{}: {}, {}; {}", schedule.name, counted(schedule.stages, "stage"),
                              counted(schedule.microbatches, "micro-batch"), times_text(schedule, times, message));
      return print(to_svg(clock_trace(schedule, clock()), svg));
    }
    case Format::torch_csv:
      return print(
          to_torch_csv(schedule, options.communication ? TorchFormat::compute_comms : TorchFormat::compute_only));
    case Format::json:
      return print_json(to_json(shown, times, clock()));
  }
}

}  // namespace

void add_show_schedule_command(CLI::App& show) {
  const auto options = std::make_shared<ShowScheduleOptions>();
  CLI::App* command = show.add_subcommand("schedule", "When each rank runs what: as text, picture, or for other tools");
  command->add_option("SCHEDULE", options->name, "A name, a plan's JSON file, or a CSV file of torch's")->required();
  add_schedule_options(*command, options->schedule);
  command->get_option("--stages-per-rank")->description("Stages a rank (default: the fewest that the schedule takes)");
  command->add_option("--group", options->group, "interleaved-1f1b: micro-batches a turn; pipedream-2bw: an update")
      ->check(CLI::Range(1, 100'000));
  command->add_option("--slices", options->slices, "seq-1f1b, searched: token slices a micro-batch")
      ->check(CLI::Range(1, 4096));
  command->add_flag("--both-directions", options->both_directions,
                    "searched: a stage may be on two ranks, each with its weights");
  command->add_option("--format", options->format, list_of<Format>(formats))->capture_default_str();
  command->add_flag("--json", options->json, "The same as --format json");
  command->add_flag("--communication", options->communication,
                    "torch-csv: write sends and receives too (torch's compute_comms)");
  command->add_option("--columns", options->columns, "grid: characters a line; 0: as many as it takes")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  std::vector<std::string> names;
  for (const ScheduleKind& kind : schedule_kinds())
    names.push_back(fmt::format("  {:<23} {}", kind.name, kind.summary));
  set_examples(*command,
               "  stagecraft show schedule zb-h1 -p 4 -m 8\n"
               "  stagecraft show schedule interleaved-1f1b -p 4 -v 2 -m 10 --group 5 --ti 2 --c 0.1\n"
               "  stagecraft show schedule zb-v -p 8 -m 16 --format svg > zb-v.svg\n"
               "  stagecraft show schedule zb-v -p 4 -m 8 --format torch-csv > zb-v.csv\n"
               "  stagecraft show schedule zb-v.csv --tf 1.2\n"
               "\nSchedules:\n" +
                   join(names, "\n"));
  command->callback([options, command] {
    if (is_file(options->name)) refuse_options_of_files(*command, options->name);
    show_schedule(*options);
  });
}

}  // namespace stagecraft
