#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/backend.hpp"
#include "cli/command.hpp"
#include "cli/console.hpp"
#include "cli/signals.hpp"
#include "models/files.hpp"
#include "models/statistics.hpp"
#include "runtime/trainer.hpp"
#include "runtime/transport.hpp"

namespace stagecraft {
namespace {

constexpr std::array learning_rate_schedules{
    std::pair<std::string_view, LearningRateSchedule>{"cosine", LearningRateSchedule::cosine},
    std::pair<std::string_view, LearningRateSchedule>{"constant", LearningRateSchedule::constant}};

struct RunCommand {
  std::string plan, output;
  std::vector<std::string> data;
  std::string backend = "cpu";
  std::string learning_rate_schedule = "cosine";
  std::string checkpoint, resume, weights, algorithm_cache;
  std::optional<std::uint64_t> seed;
  double clip = 1;
  double peer_timeout = 120;
  std::int64_t log_every = 0;
  bool no_pin = false;
  bool json = false;
  TrainingOptions options;
};

TrainingOptions training_options(const RunCommand& command) {
  TrainingOptions options = command.options;
  options.backend = choose<Backend>("--backend", command.backend, backend_names());
  options.algorithm_cache = algorithm_cache_file(command.algorithm_cache);
  options.data.assign(command.data.begin(), command.data.end());
  options.checkpoint_directory = command.checkpoint;
  options.resume = command.resume;
  options.weights = command.weights;
  options.seed = command.seed;
  options.optimizer.schedule =
      choose<LearningRateSchedule>("--learning-rate-schedule", command.learning_rate_schedule, learning_rate_schedules);
  options.optimizer.clip_norm = command.clip > 0 ? std::optional(command.clip) : std::nullopt;
  options.pin = !command.no_pin;
  options.peer_timeout = std::chrono::milliseconds(static_cast<std::int64_t>(1000 * command.peer_timeout));
  options.stop = &signals().stop;
  options.terminate = &signals().terminate;
  return options;
}

struct Summary {
  Seconds step;
  double tokens_per_second = 0;
  std::optional<double> bubble;  // of a traced run
  Seconds host_per_action;
};

// REQUIRES: a step at least.
Summary summary_of(const Trace& trace, const std::vector<double>& host_per_action) {
  Summary summary;
  if (trace.events.empty()) {
    std::vector<double> times;
    for (const Seconds time : trace.step_times) times.push_back(time.value());
    summary.step = Seconds(median(times));
  } else {
    const TraceSummary traced = summarize(trace);
    summary.step = traced.step;
    summary.bubble = traced.bubble;
  }
  summary.tokens_per_second = static_cast<double>(trace.tokens_per_step) / summary.step.value();
  summary.host_per_action = Seconds(median(host_per_action));
  return summary;
}

// Whether training stopped because its loss was not finite.
bool has_diverged(const Trace& trace) { return !trace.losses.empty() && !std::isfinite(trace.losses.back()); }

Json summary_json(const Trace& trace, const Summary& summary, std::int64_t last_step) {
  Json json = {{"steps", trace.step_times.size()},
               {"last_step", last_step},
               {"losses", trace.losses},
               {"step_time_s", summary.step.value()},
               {"tokens_per_second", summary.tokens_per_second},
               {"host_per_action_s", summary.host_per_action.value()}};
  // JSON has no such numbers: the last of "losses" is null.
  if (has_diverged(trace)) json["diverged"] = {{"step", last_step}, {"loss", fmt::format("{}", trace.losses.back())}};
  if (summary.bubble) json["bubble"] = *summary.bubble;
  if (!trace.clocks.empty()) json["clock_hz"] = trace.clocks;
  json["peak_memory_bytes"] = Json::array();
  json["warnings"] = trace.warnings;
  for (const Bytes peak : trace.peak_memory) json["peak_memory_bytes"].push_back(peak.value());
  return json;
}

// Trains and reports. Returns on success and on Ctrl-C, and with an error, to throw when all processes have ended, of a
// run whose loss is no number any more.
std::optional<Error> train_and_report(const RunCommand& command, const Plan& plan, const std::string& plan_digest,
                                      MpiSession* mpi) {
  const TrainingOptions options = training_options(command);
  const bool reporter = mpi == nullptr || mpi->process() == 0;
  const std::int64_t every = command.log_every > 0 ? command.log_every : std::max<std::int64_t>(1, options.steps / 20);
  if (options.trace_steps == 0 && !command.output.empty()) {
    throw bad_input("--trace-steps 0 leaves no trace to write to {}", command.output);
  }
  std::int64_t last_step = 0;
  std::vector<double> host_per_action;
  check_runnable(plan, options, mpi);  // before anything is said
  if (reporter && !command.json) {
    print(fmt::format("training {} on {}: {}, {}, {} of {} x {} tokens\n", plan.network.name,
                      counted(std::ssize(plan.devices) * plan.ranks(), mpi ? "process" : "thread"),
                      counted(static_cast<int>(plan.stages.size()), "stage"), counted(plan.replicas(), "replica"),
                      counted(plan.batch.microbatches, "micro-batch"), plan.batch.microbatch, plan.batch.sequence));
  }
  Trace trace = train(
      plan, options,
      [&](const StepReport& report) {
        last_step = report.step;
        host_per_action.push_back(report.host_per_action.value());
        const bool shown =
            report.step % every == 0 || report.step == 1 || report.step == options.steps || !std::isfinite(report.loss);
        if (command.json || !shown) return;
        print(fmt::format("step {:>5}  loss {:<8}  {:>8}  {:>9} tokens/s\n", report.step, loss_text(report.loss),
                          to_string(report.time), rounded_with_thousands(report.tokens_per_second)));
      },
      mpi);
  if (!reporter) return std::nullopt;
  trace.plan_digest = plan_digest;
  if (!command.output.empty() && !trace.events.empty()) save_trace(trace, command.output);
  if (trace.step_times.empty()) {
    note("no step was left to run");
  } else if (command.json) {
    print_json(summary_json(trace, summary_of(trace, host_per_action), last_step));
  } else {
    const Summary summary = summary_of(trace, host_per_action);
    print(fmt::format("median step {}, {} tokens/s", to_string(summary.step),
                      rounded_with_thousands(summary.tokens_per_second)));
    if (summary.bubble) print(fmt::format(", bubble {:.1f} %", 100 * *summary.bubble));
    if (options.backend == Backend::cuda) print(fmt::format(", host {} an action", to_string(summary.host_per_action)));
    if (!trace.clocks.empty()) {
      const auto [lowest, highest] = std::minmax_element(trace.clocks.begin(), trace.clocks.end());
      print(fmt::format(", clock {:.2f} GHz", *lowest / 1e9));
      if (*highest > 1.01 * *lowest) print(fmt::format(" to {:.2f}", *highest / 1e9));
    }
    print("\n");
    // The last one is the error below.
    const std::size_t warnings = trace.warnings.size() - (has_diverged(trace) ? 1 : 0);
    for (std::size_t i = 0; i < warnings; ++i) note("warning: " + trace.warnings[i]);
    if (!command.output.empty()) note("wrote " + command.output);
  }
  if (has_diverged(trace)) {
    const std::string& warning = trace.warnings.back();
    const std::string advice = warning.find(';') == std::string::npos ? "" : warning.substr(warning.find(';'));
    return Error(ErrorKind::check_failed,
                 fmt::format("the loss of step {} is {}: a lower --learning-rate, more --warmup-steps or a smaller "
                             "--clip may help{}",
                             last_step, trace.losses.back(), advice));
  }
  if (signals().stop) note(fmt::format("stopped after step {}", last_step));
  return std::nullopt;
}

// As train_and_report, in one of several processes; all of them have ended MPI when it returns.
std::optional<Error> train_in_processes(const RunCommand& command, const Plan& plan, const std::string& plan_digest) {
  MpiSession mpi;
  terminate_on_sigterm();
  try {
    return train_and_report(command, plan, plan_digest, &mpi);
  } catch (const Error& error) {
    // Said before the launcher is told, which ends this process too.
    note(fmt::format("error: {}", error.what()));
    mpi.abort(static_cast<int>(error.kind()));
  }
}

void refuse_ignored(const CLI::App& app, const RunCommand& command, Optimizer optimizer) {
  if (choose<Backend>("--backend", command.backend, backend_names()) == Backend::cpu) {
    refuse_options(app, {"--algorithm-cache"}, "on CPUs: expected --backend cuda with it");
  }
  if (choose<LearningRateSchedule>("--learning-rate-schedule", command.learning_rate_schedule,
                                   learning_rate_schedules) == LearningRateSchedule::constant) {
    refuse_options(app, {"--decay-steps"},
                   "on a constant learning rate: expected --learning-rate-schedule cosine with it");
  }
  const std::string plans = fmt::format("as the plan's optimizer is {}: expected a plan with ", name(optimizer));
  if (optimizer == Optimizer::adamw) refuse_options(app, {"--momentum"}, plans + "sgd");
  if (optimizer == Optimizer::sgd) refuse_options(app, {"--beta1", "--beta2"}, plans + "adamw");
}

void run(const RunCommand& command, const CLI::App& app) {
  const std::string text = read_file(command.plan);
  const Json document = parse_json(text, command.plan);
  const Plan plan = plan_from_json(JsonValue(document, command.plan));
  refuse_ignored(app, command, plan.optimizer);
  signals();
  const auto failure = MpiSession::launched() ? train_in_processes(command, plan, digest(text))
                                              : train_and_report(command, plan, digest(text), nullptr);
  if (failure) throw *failure;
}

void add_optimizer_options(CLI::App& command, RunCommand& state) {
  OptimizerOptions& optimizer = state.options.optimizer;
  CLI::Option_group* group = command.add_option_group("Optimizer", "Which optimizer is the plan's choice");
  const auto share = CLI::Range(0.0, 1.0);
  group->add_option("--learning-rate", optimizer.learning_rate, "Highest")
      ->check(non_negative_number())
      ->capture_default_str();
  group
      ->add_option("--learning-rate-schedule", state.learning_rate_schedule,
                   list_of<LearningRateSchedule>(learning_rate_schedules))
      ->capture_default_str();
  group->add_option("--warmup-steps", optimizer.warmup_steps, "Linear from zero")
      ->check(non_negative_number())
      ->capture_default_str();
  group->add_option("--decay-steps", optimizer.decay_steps, "Where the cosine ends; 0: at --steps")
      ->check(non_negative_number())
      ->capture_default_str();
  group->add_option("--beta1", optimizer.beta1, "AdamW")->check(share)->capture_default_str();
  group->add_option("--beta2", optimizer.beta2, "AdamW")->check(share)->capture_default_str();
  group->add_option("--momentum", optimizer.momentum, "SGD")->check(share)->capture_default_str();
  group->add_option("--weight-decay", optimizer.weight_decay, "On matrices")
      ->check(non_negative_number())
      ->capture_default_str();
  group->add_option("--clip", state.clip, "Longest gradient; 0: not clipped")
      ->check(non_negative_number())
      ->capture_default_str();
}

}  // namespace

void add_run_command(CLI::App& app) {
  const auto state = std::make_shared<RunCommand>();
  TrainingOptions& options = state->options;
  options.optimizer.warmup_steps = 10;  // without any, AdamW's first steps are as long as its noisiest
  CLI::App* command = app.add_subcommand("run", "Train with a plan on this machine, or on several under mpirun");
  command->add_option("PLAN", state->plan, "File from 'stagecraft plan', or hand-written")->required();
  command->add_option("--data", state->data, "Text files (bytes are tokens), or .bin files of llm.c or nanoGPT")
      ->required();
  command->add_option("--steps", options.steps, "Last step's number, resumed ones included")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40))
      ->capture_default_str();
  command->add_option("-o,--output", state->output, "Trace to write");
  command->add_option("--backend", state->backend, list_of(backend_names()))->capture_default_str();
  command->add_option("--algorithm-cache", state->algorithm_cache,
                      "File of algorithms timed on GPUs (default: a cache folder)");
  command->add_flag(
      "--deterministic", options.deterministic,
      "The same bits in every run on GPUs, too: attention's backward takes an eighth longer and more memory");
  command->add_option("--seed", state->seed, "Of parameters and batches (default: the checkpoint's, else 1)");
  CLI::Option* checkpoint = command->add_option(
      "--checkpoint", state->checkpoint, "Folder for checkpoints (safetensors), written at the end and at Ctrl-C");
  command->add_option("--checkpoint-every", options.checkpoint_interval, "Steps between checkpoints")
      ->check(non_negative_number())
      ->needs(checkpoint);
  CLI::Option* resume = command->add_option("--resume", state->resume, "A checkpoint, or a folder: its newest");
  command
      ->add_option(
          "--weights", state->weights,
          "Start from Hugging Face's: a .safetensors file, or a folder with one or with shards and their index")
      ->excludes(resume);
  command->add_option("--trace-steps", options.trace_steps, "The last so many steps are traced; 0: none")
      ->check(CLI::Range(0, 100'000))
      ->capture_default_str();
  command->add_option("--log-every", state->log_every, "Print every so many steps (default: 20 lines in all)")
      ->check(non_negative_number());
  command->add_option("--peer-timeout", state->peer_timeout, "Longest wait for another rank, in seconds")
      ->check(CLI::Range(0.1, 86400.0))
      ->capture_default_str();
  command->add_flag("--oversubscribe", options.oversubscribe, "Allow more ranks than cores");
  command->add_flag("--no-pin", state->no_pin, "Leave the placement of threads to the system");
  command->add_flag("--json", state->json, "Summary for scripts");
  add_optimizer_options(*command, *state);
  set_examples(*command,
               "  stagecraft run plan.json --data book.txt --steps 100 -o measured.json\n"
               "  stagecraft run plan.json --data train.bin --steps 1000 --checkpoint ckpt --checkpoint-every 100\n"
               "  stagecraft run plan.json --data train.bin --steps 2000 --resume ckpt\n"
               "  stagecraft run plan.json --data train.bin --weights gpt2/ --checkpoint ckpt\n"
               "  mpirun -n 4 stagecraft run plan.json --data book.txt     # a process a rank");
  command->callback([state, command] { run(*state, *command); });
}

}  // namespace stagecraft
