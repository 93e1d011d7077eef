#include "models/profile.hpp"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/backend.hpp"
#include "cli/command.hpp"
#include "cli/console.hpp"
#include "cli/signals.hpp"
#include "models/network/network.hpp"
#include "runtime/cuda/profiler.hpp"
#include "runtime/profiler.hpp"
#include "runtime/transport.hpp"

namespace stagecraft {
namespace {

struct ProfileCommand {
  std::string network, output;
  std::string optimizer = "adamw";
  std::vector<std::string> recompute{"none", "selective", "full"};
  std::string backend = "cpu", precision = "bf16", algorithm_cache;
  bool idle_neighbours = false;
  ProfileOptions options;
  cuda::ProfileConditions conditions;
  double seconds = 30;
  bool json = false;
};

std::string spread(const Measured& time) {
  if (time.count == 0) return "-";
  return fmt::format("{} ({:+.0f} {:+.0f} %)", to_string(time.median), 100 * (time.low / time.median - 1),
                     100 * (time.high / time.median - 1));
}

// What the other slices did.
std::string busy(const LayerProfile& layer) {
  std::string text = std::to_string(layer.busy_neighbours);
  if (layer.beside_forwards) text += ", F";
  if (layer.rest > 0) text += fmt::format(", rest {:.0f} %", 100 * layer.rest);
  return text;
}

std::string tables(const Profile& profile) {
  const bool shared = profile.device.is_slice();
  std::vector<std::vector<std::string>> layers{{"layer", "recompute", "micro-batch", "F", "I", "W", "stash"}};
  if (shared) layers.front().insert(layers.front().begin() + 2, "busy");
  for (const LayerProfile& layer : profile.layers) {
    for (const LayerSample& sample : layer.samples) {
      auto& row = layers.emplace_back(std::vector{
          layer.kind, std::string(name(layer.recompute)), std::to_string(sample.microbatch), spread(sample.forward),
          to_string(sample.backward_input.median), to_string(sample.backward_weight.median), to_string(sample.stash)});
      if (shared) row.insert(row.begin() + 2, busy(layer));
    }
  }
  std::string text = fmt::format("{}, {} x {}, {} tokens a sample\n\n{}", profile.machine, profile.devices,
                                 profile.device.name, profile.sequence, format_table(layers));
  for (const LinkProfile& link : profile.links) {
    text += fmt::format("\nlink '{}': {} + bytes / {}\n", link.kind, to_string(link.fit.latency),
                        to_string(link.fit.bandwidth));
  }
  for (const std::string& warning : profile.warnings) text += "warning: " + warning + "\n";
  return text;
}

cuda::ProfileConditions conditions_of(const ProfileCommand& command) {
  cuda::ProfileConditions conditions = command.conditions;
  conditions.precision = choose("--precision", command.precision, data_type_names());
  conditions.busy_neighbours = !command.idle_neighbours;
  conditions.algorithm_cache = algorithm_cache_file(command.algorithm_cache);
  return conditions;
}

void run(ProfileCommand& command, const CLI::App& app) {
  const Network network = load_network(command.network);
  ProfileOptions& options = command.options;
  options.optimizer = choose("--optimizer", command.optimizer, optimizer_names());
  options.recompute.clear();
  for (const std::string& text : command.recompute) {
    options.recompute.push_back(choose("--recompute", text, recompute_names()));
  }
  std::sort(options.microbatches.begin(), options.microbatches.end());
  options.microbatches.erase(std::unique(options.microbatches.begin(), options.microbatches.end()),
                             options.microbatches.end());
  options.time_budget = Seconds(command.seconds);
  const Backend backend = choose<Backend>("--backend", command.backend, backend_names());
  if (backend == Backend::cpu) {
    refuse_options(app, {"--cluster", "--precision", "--idle-neighbours", "--algorithm-cache"},
                   "on CPUs, which are measured in fp32: expected --backend cuda with it");
  } else {
    refuse_options(app, {"--cores"}, "on GPUs: expected --backend cpu with it");
  }
  std::unique_ptr<MpiSession> mpi;
  if (MpiSession::launched()) mpi = std::make_unique<MpiSession>();
  options.mpi = mpi.get();
  options.stop = &signals().stop;

  Profile profile;
  {
    Progress progress;
    const auto show = [&](int done, int total, const std::string& what) {
      progress.show(fmt::format("profiling {} of {}: {}", done + 1, total, what));
    };
    profile = backend == Backend::cpu ? profile_cpu(network, options, show)
                                      : cuda::profile(network, options, conditions_of(command), show);
  }
  if (mpi && mpi->process() != 0) return;
  save_profile(profile, command.output);
  if (command.json) {
    print_json(to_json(profile));
  } else {
    print(tables(profile));
    note("wrote " + command.output);
  }
}

}  // namespace

void add_profile_command(CLI::App& app) {
  const auto state = std::make_shared<ProfileCommand>();
  CLI::App* command = app.add_subcommand("profile", "Measure what single layers and links cost on this machine");
  command->add_option("--network", state->network, "A preset, or a JSON file")->required();
  command->add_option("-o,--output", state->output, "Profile to write")->required();
  command->add_option("--sequence", state->options.sequence, "Tokens a sample")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--micro-batch", state->options.microbatches, "Sizes to measure, e.g. 1,2,4,8")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--recompute", state->recompute, "Modes to measure, of " + list_of(recompute_names()))
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--optimizer", state->optimizer, list_of(optimizer_names()))->capture_default_str();
  command->add_option("--backend", state->backend, list_of(backend_names()))->capture_default_str();
  CLI::Option_group* gpu = command->add_option_group("GPUs", "With --backend cuda");
  gpu->add_option("--cluster", state->conditions.cluster, "local-gpu, or its slices such as local-gpu:slices=4")
      ->capture_default_str();
  gpu->add_option("--precision", state->precision, "fp32, tf32, bf16")->capture_default_str();
  gpu->add_flag("--idle-neighbours", state->idle_neighbours, "Measure slices with the others idle only, not also busy");
  gpu->add_option("--algorithm-cache", state->algorithm_cache, "File of algorithms timed (default: a cache folder)");
  command->add_option("--cores", state->options.cores, "Measured together; 0: all that this process may use")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command->add_option("--seconds", state->seconds, "Time for all measurements; each is made once at least")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  command->add_flag("--json", state->json, "Print the profile too");
  set_examples(*command,
               "  stagecraft profile --network demo-gpt --sequence 128 -o profile.json\n"
               "  stagecraft profile --network ./network.json --micro-batch 1,4,16 --recompute none -o profile.json\n"
               "  mpirun -n 2 stagecraft profile --network demo-gpt -o profile.json  # also links between processes\n"
               "  stagecraft profile --network gpt2 --sequence 1024 --backend cuda --cluster local-gpu:slices=4 \\\n"
               "    -o profile.json");
  command->callback([state, command] { run(*state, *command); });
}

}  // namespace stagecraft
