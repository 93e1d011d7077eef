#include <memory>
#include <nlohmann/json.hpp>

#include "cli/clusters.hpp"
#include "cli/command.hpp"
#include "cli/console.hpp"
#include "models/cost/cost.hpp"
#include "reports/tables.hpp"

namespace stagecraft {
namespace {

struct ShowOptions {
  std::string name;
  bool json = false;
  std::int64_t sequence = 0;  // 0: the network's longest
  std::string precision = "bf16";
  std::string recompute = "none";
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
  const Cluster cluster = cluster_named(options.name);
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

}  // namespace

void add_show_command(CLI::App& app) {
  const auto options = std::make_shared<ShowOptions>();
  CLI::App* command = app.add_subcommand("show", "Print a network, cluster, plan or schedule");
  command->require_subcommand(1);
  set_examples(*command,
               "  stagecraft show network gpt2-xl\n"
               "  stagecraft show cluster dgx-h100:4\n"
               "  stagecraft show plan plan.json\n"
               "  stagecraft show schedule zb-h1 -p 4 -m 8");

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

  add_show_schedule_command(*command);
}

}  // namespace stagecraft
