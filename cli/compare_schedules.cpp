#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.hpp"
#include "cli/console.hpp"
#include "cli/schedule_options.hpp"
#include "reports/schedule_comparison.hpp"
#include "reports/text_width.hpp"

namespace stagecraft {
namespace {

struct CompareSchedulesOptions {
  ScheduleOptions schedule;
  bool json = false;
};

void run(const CompareSchedulesOptions& options) {
  const ScheduleOptions& chosen = options.schedule;
  const bool own = !chosen.stages_per_rank;
  const ScheduleComparison comparison = [&] {
    Progress progress;
    const auto show = [&](std::string_view schedule) { progress.show(fmt::format("looking at {}", schedule)); };
    return own ? compare_schedules_of_one_network(chosen.shape(), chosen.times, chosen.message, show)
               : compare_schedules(chosen.shape(), chosen.times, chosen.message, show);
  }();
  if (options.json) return print_json(to_json(comparison));
  const std::string stages = own ? "" : fmt::format(" with {} each", counted(*chosen.stages_per_rank, "stage"));
  print(wrap(fmt::format("{}{}, {}; a {} takes F {:g}, I {:g}, W {:g}, a message {:g}", counted(chosen.ranks, "rank"),
                         stages, counted(chosen.microbatches, "micro-batch"), own ? "rank" : "stage",
                         chosen.times.forward, chosen.times.backward_input, chosen.times.backward_weight,
                         chosen.message)) +
        "\n" + to_text(comparison));
}

}  // namespace

void add_compare_schedules_command(CLI::App& compare) {
  const auto options = std::make_shared<CompareSchedulesOptions>();
  CLI::App* command = compare.add_subcommand("schedules", "Every schedule on the same shape and times, fastest first");
  add_schedule_options(*command, options->schedule);
  command->get_option("--stages-per-rank")
      ->description(
          "Compare those that take so many stages a rank, the times being a stage's; by default all schedules, each "
          "with its own stages, the times being those of a rank's share of the network");
  command->add_flag("--json", options->json, "For scripts");
  set_examples(*command,
               "  stagecraft compare schedules -p 8 -m 32\n"
               "  stagecraft compare schedules -p 8 -v 2 -m 32 --tf 1 --ti 1.1 --tw 0.8 --c 0.05\n"
               "\n"
               "v                 stages a rank\n"
               "makespan          first start to last end, in the unit of the times\n"
               "idle/total        bubble: the share of ranks x makespan in which nobody computes\n"
               "zero-bubble rate  bubble of the longest span of one rank, as the zero-bubble papers count it\n"
               "peak stash        micro-batches whose activations the fullest rank keeps until their W; with -v:\n"
               "                  activations of a stage\n"
               "weights           ranks that hold the weights of a stage: two in bidirectional schedules\n"
               "messages          between ranks, a step");
  command->callback([options] { run(*options); });
}

}  // namespace stagecraft
