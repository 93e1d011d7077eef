#include <array>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.hpp"
#include "cli/console.hpp"
#include "models/cost/roofline.hpp"
#include "models/files.hpp"
#include "planner/layout_plan.hpp"
#include "reports/comparison.hpp"
#include "sim/simgrid.hpp"
#include "sim/timeline.hpp"

namespace stagecraft {
namespace {

enum class Engine { timeline, simgrid };
constexpr std::array engines{std::pair<std::string_view, Engine>{"timeline", Engine::timeline},
                             std::pair<std::string_view, Engine>{"simgrid", Engine::simgrid}};

struct SimulateOptions {
  std::string plan;
  std::string engine = "timeline";
  std::string output;
  bool unfolded = false;
  bool json = false;
};

Json summary_json(const Plan& plan, const Trace& trace) {
  const TraceSummary summary = summarize(trace);
  Json json = {{"source", trace.source},
               {"step_time_s", summary.step.value()},
               {"bubble", summary.bubble},
               {"span_bubble", summary.span_bubble},
               {"peak_memory_bytes", Json::array()},
               {"device_memory_bytes", Json::array()}};
  for (std::size_t row = 0; row < trace.peak_memory.size(); ++row) {
    json["peak_memory_bytes"].push_back(trace.peak_memory[row].value());
    const DeviceType& type = plan.cluster.type_of(plan.devices.front()[row % static_cast<std::size_t>(trace.ranks)]);
    json["device_memory_bytes"].push_back(trace.peak_memory[row].value() / type.group);
  }
  if (summary.step > Seconds(0)) {
    json["tokens_per_second"] = static_cast<double>(trace.tokens_per_step) / summary.step.value();
  }
  return json;
}

void print_summary(const Trace& trace) {
  const TraceSummary summary = summarize(trace);
  std::string text =
      fmt::format("{}: step {}, bubble {:.1f} % (idle / total), {:.1f} % (of the longest rank's span)\n", trace.source,
                  to_string(summary.step), 100 * summary.bubble, 100 * summary.span_bubble);
  std::vector<std::vector<std::string>> rows{{"stage", "action", "median", "count"}};
  for (const auto& kind : summary.kinds) {
    rows.push_back({std::to_string(kind.stage.value), std::string(letters(kind.kind)), to_string(kind.median),
                    std::to_string(kind.count)});
  }
  print(text + "\n" + format_table(rows));
}

void run(const SimulateOptions& options, const CLI::App& command) {
  const Engine engine = choose<Engine>("--engine", options.engine, engines);
  if (engine == Engine::timeline) {
    refuse_options(command, {"--unfolded"}, "on the timeline: expected --engine simgrid with it");
  }
  const std::string text = read_file(options.plan);
  const Json document = parse_json(text, options.plan);
  Plan plan = plan_from_json(JsonValue(document, options.plan));
  if (!is_priced(plan)) {
    const bool sharded = !plan.layout.has_whole_layers();
    note(fmt::format("{}: has no stage costs; priced by the {} of its devices", options.plan,
                     sharded ? "step model" : "roofline"));
    if (sharded) {
      price(plan, StepModel(job_of(plan), machine_of(plan.cluster)));
    } else {
      price(plan, RooflineCostModel(reserved_memory(plan.cluster)));
    }
  }
  Trace trace = engine == Engine::timeline ? simulate_timeline(plan)
                                           : simulate_simgrid(plan, {.fold_replicas = !options.unfolded});
  trace.plan_digest = digest(text);
  if (!options.output.empty()) save_trace(trace, options.output);
  if (options.json) {
    print_json(summary_json(plan, trace));
  } else {
    print_summary(trace);
    if (!options.output.empty()) note("wrote " + options.output);
  }
}

}  // namespace

void add_simulate_command(CLI::App& app) {
  const auto options = std::make_shared<SimulateOptions>();
  CLI::App* command = app.add_subcommand("simulate", "Execute a plan on a simulated cluster");
  command->add_option("PLAN", options->plan, "File from 'stagecraft plan', or hand-written")->required();
  command->add_option("--engine", options->engine, "timeline: exact path lengths, no contention; simgrid: shared links")
      ->capture_default_str();
  command->add_option("-o,--output", options->output, "Trace to write");
  command->add_flag("--unfolded", options->unfolded, "simgrid: simulate every replica even where one stands for all");
  command->add_flag("--json", options->json, "Summary for scripts");
  set_examples(*command,
               "  stagecraft simulate plan.json\n"
               "  stagecraft simulate plan.json --engine simgrid -o simgrid.json --json");
  command->callback([options, command] { run(*options, *command); });
}

}  // namespace stagecraft
