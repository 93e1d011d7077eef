#include <memory>

#include "cli/command.hpp"
#include "cli/console.hpp"
#include "models/cost/cost.hpp"
#include "models/files.hpp"
#include "models/schedule/checker.hpp"
#include "models/schedule/torch_csv.hpp"
#include "reports/tables.hpp"

namespace stagecraft {
namespace {

struct ShowOptions {
  std::string name;
  bool json = false;
  std::int64_t sequence = 0;  // 0: the network's longest
  std::string precision = "bf16";
  std::string recompute = "none";
  int ranks = 4, stages_per_rank = 1, microbatches = 8;
};

// For --help, which must work without the preset files too.
std::string preset_list(std::vector<std::string> (*names)()) {
  try {
    return join(names());
  } catch (const Error&) {
    return "(not found)";
  }
}

void show_network(const ShowOptions& options) {
  const Network network = load_network(options.name);
  Workload workload;
  workload.sequence = network.transformer ? network.transformer->max_sequence : 1;
  if (options.sequence > 0) workload.sequence = options.sequence;
  workload.precision = choose("--precision", options.precision, data_type_names());
  workload.recompute = choose("--recompute", options.recompute, recompute_names());
  if (options.json) {
    print_json(network_summary(network, workload));
  } else {
    print(network_table(network, workload));
  }
}

void show_cluster(const ShowOptions& options) {
  const Cluster cluster = load_cluster(options.name);
  if (options.json) {
    print_json(to_json(cluster));
  } else {
    print(cluster_table(cluster));
  }
}

void show_plan(const ShowOptions& options) {
  const Plan plan = load_plan(options.name);
  if (options.json) {
    print_json(to_json(plan));
  } else {
    print(plan_table(plan));
  }
}

Json to_json(const ComputeSchedule& schedule) {
  Json json = {{"name", schedule.name}, {"stages", schedule.stages}, {"microbatches", schedule.microbatches}};
  json["ranks"] = Json::array();
  for (const auto& actions : schedule.ranks) {
    Json row = Json::array();
    for (const Action& action : actions) row.push_back(to_string(action));
    json["ranks"].push_back(std::move(row));
  }
  json["in_flight"] = peak_in_flight_by_stage(schedule);
  return json;
}

void show_schedule(const ShowOptions& options) {
  ComputeSchedule schedule;
  if (options.name.ends_with(".csv")) {
    schedule = from_torch_csv(read_file(options.name), options.name);
  } else if (options.name.ends_with(".json")) {
    schedule = load_plan(options.name).schedule;
  } else {
    schedule = make_schedule(options.name, {options.ranks, options.stages_per_rank, options.microbatches});
  }
  if (options.json) {
    print_json(to_json(schedule));
  } else {
    print(schedule_table(schedule));
  }
}

}  // namespace

void add_show_command(CLI::App& app) {
  const auto options = std::make_shared<ShowOptions>();
  CLI::App* command = app.add_subcommand("show", "Print a network, cluster, plan or schedule");
  command->require_subcommand(1);

  CLI::App* network = command->add_subcommand("network", "Layers, parameters, FLOPs and activation memory");
  network->add_option("NETWORK", options->name, "A preset, or a JSON file (ours or Hugging Face's config.json)")
      ->required();
  network->add_option("--sequence", options->sequence, "Tokens a sample (default: the network's longest)")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30));
  network->add_option("--precision", options->precision, list_of(data_type_names()))->capture_default_str();
  network->add_option("--recompute", options->recompute, list_of(recompute_names()))->capture_default_str();
  network->add_flag("--json", options->json, "For scripts");
  set_examples(*network,
               "  stagecraft show network gpt2-xl\n"
               "  stagecraft show network ./config.json --json\n"
               "\nPresets: " +
                   preset_list(network_presets));
  network->callback([options] { show_network(*options); });

  CLI::App* cluster = command->add_subcommand("cluster", "Devices, nodes and links");
  cluster->add_option("CLUSTER", options->name, "A preset, PRESET:NODES, or a JSON file")->required();
  cluster->add_flag("--json", options->json, "For scripts; itself a cluster file");
  set_examples(*cluster,
               "  stagecraft show cluster dgx-h100:4\n"
               "  stagecraft show cluster local-cpu --json > cluster.json\n"
               "\nPresets: " +
                   preset_list(cluster_presets));
  cluster->callback([options] { show_cluster(*options); });

  CLI::App* plan = command->add_subcommand("plan", "Stages, devices, costs, memory and prediction");
  plan->add_option("PLAN", options->name, "A plan's JSON file")->required();
  plan->add_flag("--json", options->json, "For scripts");
  set_examples(*plan, "  stagecraft show plan plan.json");
  plan->callback([options] { show_plan(*options); });

  CLI::App* schedule = command->add_subcommand("schedule", "The grid of a schedule");
  std::vector<std::string> names;
  for (const ScheduleKind& kind : schedule_kinds()) names.push_back(fmt::format("  {:<23} {}", kind.name, kind.summary));
  schedule->add_option("SCHEDULE", options->name, "A name, a plan's JSON file, or a CSV file of torch's")->required();
  schedule->add_option("--ranks", options->ranks, "Pipeline ranks")->check(CLI::Range(1, 4096))->capture_default_str();
  schedule->add_option("--stages-per-rank", options->stages_per_rank, "Virtual stages a rank")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  schedule->add_option("--microbatches", options->microbatches, "Micro-batches")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  schedule->add_flag("--json", options->json, "For scripts");
  set_examples(*schedule,
               "  stagecraft show schedule 1f1b --ranks 4 --microbatches 8\n"
               "  stagecraft show schedule schedule.csv\n"
               "\nSchedules:\n" +
                   join(names, "\n"));
  schedule->callback([options] { show_schedule(*options); });
}

}  // namespace stagecraft
