#include <algorithm>
#include <array>
#include <charconv>
#include <memory>

#include "cli/clusters.hpp"
#include "cli/command.hpp"
#include "cli/console.hpp"
#include "cli/layout_output.hpp"
#include "cli/plan_engine.hpp"
#include "cli/plan_options.hpp"
#include "cli/plan_precision.hpp"
#include "models/text.hpp"
#include "planner/layout_search.hpp"
#include "planner/planner.hpp"

namespace stagecraft {
namespace {

constexpr const char* layout_group = "Layouts";

// The options that only the search of the full layout space knows, as given.
std::vector<std::string> layout_options_given(const CLI::App& command) {
  std::vector<std::string> given;
  for (const CLI::Option* option : command.get_option_group(layout_group)->get_options()) {
    if (option->count() > 0) given.push_back(option->get_name());
  }
  return given;
}

// The cluster with the prices that --price gives.
Cluster with_prices(Cluster cluster, const std::vector<std::string>& prices) {
  for (const std::string& text : prices) {
    const std::size_t at = text.rfind('=');
    const double price = std::stod(text.substr(at + 1));
    const std::string type = at == std::string::npos ? "" : text.substr(0, at);
    std::vector<std::string> names;
    bool found = false;
    for (DeviceType& device : cluster.device_types) {
      names.push_back(printable(device.name));
      if (!type.empty() && device.name != type) continue;
      device.price = price;
      found = true;
    }
    if (!found) {
      throw bad_input("--price: expected a device type of cluster '{}', of {}, got '{}'{}", printable(cluster.name),
                      join(names), printable(type), did_you_mean(type, names));
    }
  }
  return cluster;
}

void run(const PlanOptions& options, const CLI::App& command) {
  const Network network = load_network(options.network);
  const Cluster cluster = with_prices(cluster_named(options.cluster), options.prices);
  if (options.devices > std::ssize(cluster.devices)) {
    throw bad_input("--devices: expected at most the {} of cluster '{}', got {}", cluster.devices.size(),
                    printable(cluster.name), options.devices);
  }
  const std::string reason = why_no_layouts(options, network, cluster);
  if (reason.empty()) return plan_layouts(with_precision(options, cluster, nullptr), network, cluster);
  for (const std::string& option : layout_options_given(command)) {
    const std::string refusal = refuse_here(option, options, network, cluster);
    if (!refusal.empty()) throw bad_input("{}: {}", option, refusal);
  }
  if (options.precisions.size() > 1) {
    throw bad_input("--precision: expected one, got {}; only pipelines and replicas are planned here, as {}",
                    join(options.precisions), reason);
  }
  plan_partitions(options, network, cluster);
}

// "on" or "off".
void add_switch(CLI::App& group, const std::string& name, std::optional<bool>& value, const std::string& help) {
  group
      .add_option_function<std::string>(
          name, [&value](const std::string& text) { value = text == "on"; }, help)
      ->check(CLI::IsMember({"on", "off"}));
}

// "4", "3,2,1,0" or "fewest".
void read_recomputed_layers(const std::string& text, PlanOptions& options) {
  std::optional<std::int32_t>& layers = options.layout.recomputed_layers;
  if (text == "fewest") {
    layers = fewest_layers;
    return;
  }
  std::vector<std::int32_t> blocks;
  for (const std::string& part : CLI::detail::split(text, ',')) {
    std::int32_t number = -1;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), number);
    if (error != std::errc() || end != part.data() + part.size() || number < 0 || number > 1'000'000 ||
        text.ends_with(',')) {
      throw bad_input(
          "--recompute-layers: expected a number of blocks, one for each pipeline rank such as 3,2,1,0, or "
          "fewest, got '{}'",
          printable(text));
    }
    blocks.push_back(number);
  }
  if (blocks.size() == 1 && blocks.front() == 0) {
    throw bad_input("--recompute-layers: expected at least 1, or --recompute none, got 0");
  }
  layers = blocks.size() == 1 ? blocks.front() : listed_layers;
  if (blocks.size() > 1) options.recomputed_blocks = blocks;
}

void add_layout_options(CLI::App& command, PlanOptions& options) {
  const auto positive = CLI::Range(1, 1'000'000);
  CLI::App* group =
      command.add_option_group(layout_group, "For transformers on like GPUs; left to the search unless given");
  LayoutChoices& layout = options.layout;
  group->add_option("--pipeline", layout.pipeline, "Pipeline ranks")->check(positive);
  group->add_option("--virtual-stages", layout.virtual_stages, "Stages a rank")->check(positive);
  group->add_option("--tensor", layout.tensor, "Tensor-parallel width; on unlike GPUs that of all types")
      ->check(positive);
  group->add_option("--context", layout.context, "Context-parallel width")->check(positive);
  group
      ->add_option("--expert", layout.expert, "Expert-parallel width, within data x context or tensor x data x context")
      ->check(positive);
  group->add_option("--zero", layout.zero, "ZeRO stage: 1 distributed optimizer .. 3 FSDP; on unlike devices 0 or 1")
      ->check(CLI::Range(0, 3));
  group->add_option_function<std::string>(
      "--recompute-layers", [&options](const std::string& text) { read_recomputed_layers(text, options); },
      "Blocks a rank that recompute; one number for each pipeline rank, e.g. 3,2,1,0; or fewest: on\neach rank as "
      "few as it needs; on unlike devices, too");
  const auto add_end = [&](const std::string& name, std::optional<std::int32_t>& end, const char* help) {
    group
        ->add_option_function<std::int32_t>(
            name, [&end](std::int32_t layers) { end = layers == 0 ? no_layers : layers; }, help)
        ->check(CLI::Range(0, 1'000'000));
  };
  add_end("--first-stage-layers", layout.first_stage_layers, "Blocks of the first stage; 0: the embedding alone");
  add_end("--last-stage-layers", layout.last_stage_layers, "Blocks of the last stage; 0: the head alone");
  add_switch(*group, "--sequence-parallel", layout.sequence_parallel,
             "Norms and dropouts sharded with the tensors: on, off (off on unlike GPUs: with --framework)");
  add_switch(*group, "--offload-optimizer", layout.offload_optimizer, "Optimizer in host memory: on, off");
  add_switch(*group, "--offload-activations", layout.offload_activations, "Activations in host memory: on, off");
  add_switch(*group, "--overlap-gradients", layout.overlap_gradients, "Reductions behind the backward: on, off");
  add_switch(*group, "--overlap-parameters", layout.overlap_parameters,
             "Parameter gathers behind the forward: on, off");
  add_switch(*group, "--overlap-tensor", layout.overlap_tensor,
             "Tensor-parallel communication behind products: on, off");
  add_switch(*group, "--overlap-pipeline", layout.overlap_pipeline,
             "Messages between stages behind computation: on, off");
  group->add_option("--order", options.order,
                    "Dimensions from neighbours outwards, e.g. tcdp: tensor, context, data, pipeline");
  group->add_flag("--staggered-steps", layout.staggered_steps,
                  "Also schedules that need ranks to begin the next step without a barrier: zb-h2, zb-2p, zb-v");
  group->add_option("--framework", options.framework,
                    "Whose code trains: its fitted constants, and only layouts that it runs\n(default: megatron-core)");
  command.add_option("--objective", options.objective, list_of(layout_objective_names()))->capture_default_str();
  command
      .add_option("--price", options.prices,
                  "US dollars an hour of one device, or of each type: A100=4,V100=2.5 (default: the cluster's)")
      ->delimiter(',')
      ->check(CLI::Validator(
          [](std::string& text) {
            std::string price = text.substr(text.rfind('=') + 1);
            const std::string complaint = positive_number()(price);
            return complaint.empty() && std::stod(price) > 1e9 ? "expected a number up to 1e9, got '" + price + "'"
                                                               : complaint;
          },
          "[TYPE=]POSITIVE"));
  command.add_flag("--explain", options.explain,
                   "Where the step goes; what faster links, memory or devices would change");
  command.add_flag("--pareto", options.pareto, "Layouts of which none is as fast, as small and takes as few devices");
  command.add_option("--scaling", options.scaling, "The best layout on so many devices, e.g. 8,16,32")
      ->delimiter(',')
      ->check(positive);
  command
      .add_flag("--weak", options.weak, "--scaling: the batch grows with the devices, from that of the first number")
      ->needs(command.get_option("--scaling"));
}

// Whether attention is fused unless the user says: where all that compute in the precision are GPUs of the generation
// that brought bf16, in 16 bits or fewer, as flash attention is; here on every GPU.
bool has_fused_attention(const PlanOptions& options, const Network& network, const Cluster& cluster,
                         DataType precision) {
  if (!network.transformer) return false;
  const auto has = [&](const DeviceType& type) {
    const bool is_recent = type.peak_of(DataType::bf16) > FlopsPerSecond(0);
    return type.kind == DeviceKind::gpu &&
           (is_this_machine(options.cluster) || (is_recent && element_size(precision) <= Bytes(2)));
  };
  return std::all_of(cluster.devices.begin(), cluster.devices.end(), [&](const Device& device) {
    const DeviceType& type = cluster.device_types[static_cast<std::size_t>(device.type)];
    return !(type.peak_of(precision) > FlopsPerSecond(0)) || has(type);
  });
}

}  // namespace

SearchSpace search_space(const PlanOptions& options, const Network& network, const Cluster& cluster) {
  SearchSpace space = options.space;
  space.precision = choose("--precision", options.precisions.front(), data_type_names());
  space.objective = choose("--objective", options.objective, layout_objective_names());
  space.optimizer = choose("--optimizer", options.optimizer, optimizer_names());
  if (!options.recompute.empty()) space.recompute = choose("--recompute", options.recompute, recompute_names());
  if (!options.schedule.empty()) space.schedule = options.schedule;
  if (options.stages > 0) space.stages = options.stages;
  if (options.replicas > 0) space.replicas = options.replicas;
  if (options.microbatch > 0) space.microbatch = options.microbatch;
  if (options.devices > 0) space.devices = options.devices;
  space.cuts = options.cuts;
  space.fused_attention =
      options.fused_attention.value_or(has_fused_attention(options, network, cluster, space.precision));
  space.sequence = options.sequence;
  if (options.sequence == 0) space.sequence = network.transformer ? network.transformer->max_sequence : 1;
  return space;
}

void add_plan_command(CLI::App& app) {
  const auto options = std::make_shared<PlanOptions>();
  CLI::App* command = app.add_subcommand("plan", "Find how to split the training of a network over a cluster");
  SearchSpace& space = options->space;
  const auto positive = CLI::Range(1, 1'000'000'000);
  command->add_option("--network", options->network, "A preset, or a JSON file (ours or a Hugging Face config.json)")
      ->required();
  command->add_option("--cluster", options->cluster, "A preset, PRESET:NODES, or a JSON file")->required();
  command->add_option("--global-batch", space.global_batch, "Samples a step")->required()->check(positive);
  command
      ->add_option("--sequence", options->sequence,
                   "Tokens a sample (default: the profile's, else the network's longest)")
      ->check(positive);
  command->add_option("-o,--output", options->output, "Plan to write");
  command->add_option("--profile", options->profile, "Measured costs, from 'stagecraft profile'");
  CLI::Option_group* fixed = command->add_option_group("Fixed", "Left to the search unless given");
  fixed->add_option("--stages", options->stages, "Pipeline stages")->check(positive);
  fixed->add_option("--replicas,--data", options->replicas, "Data-parallel width")->check(positive);
  fixed->add_option("--micro-batch", options->microbatch, "Samples a micro-batch")->check(positive);
  fixed->add_option("--schedule", options->schedule,
                    "Pipeline schedule (default: those whose closed form is exact; named: any)");
  fixed->add_option(
      "--recompute", options->recompute,
      list_of(recompute_names()) + "; of layouts as many blocks as it takes to fit, or --recompute-layers");
  fixed
      ->add_option("--cuts", options->cuts,
                   "First layer of each stage but the first, e.g. 7,13,19; layer 0 is a transformer's embedding")
      ->delimiter(',');
  command->add_option("--devices", options->devices, "Use at most this many")->check(positive);
  command
      ->add_option("--precision", options->precisions,
                   list_of(data_type_names()) +
                       "; several, such as bf16,fp8: the fastest of them (default: bf16, "
                       "or the next best that all devices compute in)")
      ->delimiter(',');
  command->add_option("--optimizer", options->optimizer, list_of(optimizer_names()))->capture_default_str();
  command
      ->add_option_function<std::string>(
          "--fused-attention", [options](const std::string& text) { options->fused_attention = text != "off"; },
          "The attention kernel keeps no sequence x sequence matrix: on, off (default: on where all devices in use are "
          "GPUs that compute in bf16, in 16 bits or fewer, and on local-gpu)")
      ->expected(0, 1)
      ->check(CLI::IsMember({"on", "off"}));
  command->add_option("--top", space.keep, "Plans to rank")->check(CLI::Range(1, 1000))->capture_default_str();
  command->add_option("--confirm", options->confirm, "Best plans that SimGrid judges, with contention")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  command->add_flag("--json", options->json, "For scripts");
  add_layout_options(*command, *options);
  set_examples(*command,
               "  stagecraft plan --network gpt2-xl --cluster dgx-a100 --global-batch 64 -o plan.json\n"
               "  stagecraft plan --network llama-3.1-405b --cluster dgx-h100:64 --global-batch 512 --schedule 1f1b\n"
               "  stagecraft plan --network gpt3-175b --cluster dgx-a100:128 --global-batch 1536 --tensor 8 \\\n"
               "    --explain\n"
               "  stagecraft plan --network gpt3-13b --cluster dgx-a100:2 --global-batch 64 --tensor 2 \\\n"
               "    --schedule 1f1b --cuts 9,19,31 --recompute full --recompute-layers 4,3,1,0\n"
               "  stagecraft plan --network llama-2-70b --cluster dgx-h100:64 --global-batch 1024 \\\n"
               "    --scaling 64,128,256\n"
               "  stagecraft plan --network llama-2-13b --cluster mixed-a100-v100 --global-batch 64\n"
               "  stagecraft plan --network demo-gpt --cluster local-cpu --profile profile.json \\\n"
               "    --global-batch 16 --stages 2 --schedule gpipe -o plan.json");
  command->callback([options, command] { run(*options, *command); });
}

}  // namespace stagecraft
