#include <algorithm>
#include <memory>

#include "cli/clusters.hpp"
#include "cli/command.hpp"
#include "cli/console.hpp"
#include "models/cost/profiled.hpp"
#include "models/cost/roofline.hpp"
#include "models/files.hpp"
#include "models/profile.hpp"
#include "models/version.hpp"
#include "planner/own_order.hpp"
#include "planner/planner.hpp"
#include "reports/tables.hpp"
#include "reports/text_width.hpp"
#include "sim/simgrid.hpp"

namespace stagecraft {
namespace {

struct PlanOptions {
  std::string network, cluster, profile, output;
  std::string precision = "bf16", optimizer = "adamw", recompute;
  std::string schedule;
  std::int64_t sequence = 0;  // 0: the network's longest
  std::int64_t microbatch = 0;
  int stages = 0, replicas = 0, devices = 0;
  std::vector<std::int64_t> cuts;
  SearchSpace space;
  int confirm = 3;
  bool json = false;
};

SearchSpace search_space(const PlanOptions& options, const Network& network) {
  SearchSpace space = options.space;
  space.precision = choose("--precision", options.precision, data_type_names());
  space.optimizer = choose("--optimizer", options.optimizer, optimizer_names());
  if (!options.recompute.empty()) space.recompute = choose("--recompute", options.recompute, recompute_names());
  if (!options.schedule.empty()) space.schedule = options.schedule;
  if (options.stages > 0) space.stages = options.stages;
  if (options.replicas > 0) space.replicas = options.replicas;
  if (options.microbatch > 0) space.microbatch = options.microbatch;
  if (options.devices > 0) space.devices = options.devices;
  space.cuts = options.cuts;
  space.sequence = options.sequence;
  if (options.sequence == 0) space.sequence = network.transformer ? network.transformer->max_sequence : 1;
  return space;
}

// Re-judges the best few with contention and puts the fastest first.
void confirm(SearchResult& result, int count) {
  const auto end = result.ranked.begin() + std::min<std::ptrdiff_t>(count, std::ssize(result.ranked));
  for (auto ranked = result.ranked.begin(); ranked != end; ++ranked) {
    ranked->plan.prediction.simgrid_step = simulate_simgrid(ranked->plan).step_times.front();
  }
  std::stable_sort(result.ranked.begin(), end, [](const RankedPlan& a, const RankedPlan& b) {
    return a.plan.prediction.simgrid_step < b.plan.prediction.simgrid_step;
  });
}

std::string shown(const std::optional<Seconds>& time) { return time ? to_string(*time) : "-"; }

std::string ranking_table(const SearchResult& result) {
  std::vector<std::vector<std::string>> rows{{"", "plan", "closed form", "timeline", "SimGrid", "bubble", "memory"}};
  int place = 0;
  for (const RankedPlan& ranked : result.ranked) {
    const Prediction& prediction = ranked.plan.prediction;
    const auto peak = std::max_element(prediction.peak_memory.begin(), prediction.peak_memory.end());
    rows.push_back({std::to_string(++place), to_string(ranked.candidate.layout), shown(prediction.closed_form_step),
                    shown(prediction.timeline_step), shown(prediction.simgrid_step),
                    fmt::format("{:.1f} %", 100 * prediction.bubble),
                    peak == prediction.peak_memory.end() ? "-" : to_string(*peak)});
  }
  return format_table(rows);
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
    text += wrap(fmt::format("  {}: {}", to_string(miss.layout), miss.verdict));
  }
  for (const std::string& remark : result.notes) text += wrap("note: " + remark);
  const SearchCounts& counts = result.counts;
  text += fmt::format("\n{} layouts: {} do not fit, {} outclassed, {} partitioned exactly, {} simulated\n",
                      with_thousands(counts.layouts), with_thousands(counts.out_of_memory),
                      with_thousands(counts.outclassed), with_thousands(counts.partitioned),
                      with_thousands(counts.simulated));
  return text;
}

Json layout_json(const Layout& layout) {
  return {{"stages", layout.stages},
          {"ranks", layout.ranks},
          {"replicas", layout.replicas},
          {"microbatch", layout.microbatch},
          {"microbatches", layout.microbatches},
          {"schedule", layout.schedule},
          {"recompute", name(layout.recompute)}};
}

Json result_json(const SearchResult& result) {
  Json json;
  json["ranked"] = Json::array();
  for (const RankedPlan& ranked : result.ranked) {
    Json entry = layout_json(ranked.candidate.layout);
    entry["prediction"] = to_json(ranked.plan)["prediction"];
    json["ranked"].push_back(std::move(entry));
  }
  json["near_misses"] = Json::array();
  for (const Candidate& miss : result.near_misses) {
    Json entry = layout_json(miss.layout);
    entry["verdict"] = miss.verdict;
    if (miss.shortage) {
      entry["shortage"] = {{"stage", miss.shortage->stage.value},
                           {"needed_bytes", miss.shortage->needed.value()},
                           {"available_bytes", miss.shortage->available.value()}};
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
  return json;
}

void run(const PlanOptions& options) {
  const Network network = load_network(options.network);
  Cluster cluster = cluster_named(options.cluster);
  const SearchSpace space = search_space(options, network);

  std::unique_ptr<CostModel> model = std::make_unique<RooflineCostModel>();
  std::string profile_digest;
  if (!options.profile.empty()) {
    const std::string text = read_file(options.profile);
    const Json document = parse_json(text, options.profile);
    Profile profile = profile_from_json(JsonValue(document, options.profile));
    // The link that was measured last is the slowest: a profile taken under mpirun also has that between processes. One
    // GPU has none.
    if (!profile.links.empty()) cluster = with_measured_link(std::move(cluster), profile, profile.links.back().kind);
    profile_digest = digest(text);
    model = std::make_unique<ProfiledCostModel>(std::move(profile));
  }

  Progress progress;
  progress.show("searching ...");
  SearchResult result = search(network, cluster, *model, space);
  progress.show("confirming with SimGrid ...");
  confirm(result, options.confirm);

  Plan plan = result.best();
  plan.tool_version = version;
  plan.profile_digest = profile_digest;
  if (!options.output.empty()) save_plan(plan, options.output);
  if (options.json) {
    print_json(result_json(result));
    return;
  }
  print(ranking_table(result) + "\n" + explanation(result) + "\n" + plan_table(plan));
  if (plan.schedule.name == "searched") {
    print(fmt::format(
        "lower bound {}: no order of these stages computes a step sooner (reductions and optimizer apart)\n",
        to_string(order_lower_bound(plan))));
  }
  if (!options.output.empty()) note("wrote " + options.output);
}

}  // namespace

void add_plan_command(CLI::App& app) {
  const auto options = std::make_shared<PlanOptions>();
  CLI::App* command = app.add_subcommand("plan", "Find how to split the training of a network over a cluster");
  SearchSpace& space = options->space;
  const auto positive = CLI::Range(1, 1'000'000'000);
  command->add_option("--network", options->network, "A preset, or a JSON file (ours or a Hugging Face config.json)")
      ->required();
  command->add_option("--cluster", options->cluster, "A preset, PRESET:NODES, or a JSON file")->required();
  command->add_option("--global-batch", space.global_batch, "Samples a step")->required()->check(positive);
  command->add_option("--sequence", options->sequence, "Tokens a sample (default: the network's longest)")
      ->check(positive);
  command->add_option("-o,--output", options->output, "Plan to write");
  command->add_option("--profile", options->profile, "Measured costs, from 'stagecraft profile'");
  CLI::Option_group* fixed = command->add_option_group("Fixed", "Left to the search unless given");
  fixed->add_option("--stages", options->stages, "Pipeline stages")->check(positive);
  fixed->add_option("--replicas", options->replicas, "Data-parallel width")->check(positive);
  fixed->add_option("--micro-batch", options->microbatch, "Samples a micro-batch")->check(positive);
  fixed->add_option("--schedule", options->schedule, "Pipeline schedule (searched: gpipe, 1f1b)");
  fixed->add_option("--recompute", options->recompute, list_of(recompute_names()));
  fixed->add_option("--cuts", options->cuts, "First layer of each stage but the first, e.g. 7,13,19")->delimiter(',');
  command->add_option("--devices", options->devices, "Use at most this many")->check(positive);
  command->add_option("--precision", options->precision, list_of(data_type_names()))->capture_default_str();
  command->add_option("--optimizer", options->optimizer, list_of(optimizer_names()))->capture_default_str();
  command->add_flag("--fused-attention", space.fused_attention,
                    "The attention kernel keeps no sequence x sequence matrix");
  command->add_option("--top", space.keep, "Plans to rank")->check(CLI::Range(1, 1000))->capture_default_str();
  command->add_option("--confirm", options->confirm, "Best plans to judge again in SimGrid, with contention")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  command->add_flag("--json", options->json, "For scripts");
  set_examples(*command,
               "  stagecraft plan --network gpt2-xl --cluster dgx-a100 --global-batch 64 -o plan.json\n"
               "  stagecraft plan --network llama-3.1-405b --cluster dgx-h100:64 --global-batch 512 --schedule 1f1b\n"
               "  stagecraft plan --network demo-gpt --cluster local-cpu --profile profile.json --precision fp32 \\\n"
               "    --global-batch 16 --stages 2 --schedule gpipe -o plan.json");
  command->callback([options] { run(*options); });
}

}  // namespace stagecraft
