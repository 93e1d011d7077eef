#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.hpp"
#include "cli/console.hpp"
#include "reports/comparison.hpp"

namespace stagecraft {
namespace {

struct CompareOptions {
  std::vector<std::string> files;
  std::optional<double> max_error;
  bool json = false;
  bool markdown = false;
};

void run(const CompareOptions& options) {
  if (options.files.empty()) throw CLI::RequiredError("FILE");
  const Documents documents = load_documents(options.files);
  const Plan* plan = documents.plan ? &*documents.plan : nullptr;
  if (documents.predicted.size() + (plan != nullptr ? 1 : 0) + (documents.measured ? 1 : 0) < 2) {
    throw bad_input("compare: expected at least two of a plan, simulated traces and a measured one");
  }
  if (options.max_error) {
    if (!documents.measured) {
      throw bad_input("--max-error: expected a measured trace (from 'stagecraft run') among the files");
    }
    if (!documents.other_networks.empty()) {
      throw bad_input("--max-error: not the same network: {}", documents.other_networks.front());
    }
  }
  const Comparison comparison = documents.measured
                                    ? compare(plan, documents.predicted, *documents.measured, documents.files)
                                    : tabulate(plan, documents.predicted, documents.files);
  if (options.json) {
    print_json(to_json(comparison));
  } else {
    print(options.markdown ? to_markdown(comparison) : to_text(comparison));
  }
  if (options.max_error && comparison.exceeds(*options.max_error)) {
    throw Error(ErrorKind::check_failed,
                fmt::format("the predicted step time is off by more than {} %", *options.max_error));
  }
}

}  // namespace

void add_compare_command(CLI::App& app) {
  const auto options = std::make_shared<CompareOptions>();
  CLI::App* command = app.add_subcommand("compare", "Lay predicted and measured times side by side, with errors");
  command->add_option("FILE", options->files,
                      "A plan and traces, in any order: simulated ones and a measured one; without that, what each "
                      "predicts");
  command
      ->add_option("--max-error", options->max_error,
                   "Exit with 1 if the best prediction of the step time is off by more (percent)")
      ->check(non_negative_number());
  command->add_flag("--json", options->json, "For scripts");
  command->add_flag("--markdown", options->markdown, "For documents");
  set_examples(*command,
               "  stagecraft compare plan.json timeline.json simgrid.json measured.json\n"
               "  stagecraft compare plan.json timeline.json simgrid.json\n"
               "  stagecraft compare plan.json measured.json --max-error 5 --json\n"
               "  stagecraft compare schedules -p 8 -m 32");
  add_compare_schedules_command(*command);
  command->callback([options, command] {
    if (command->get_subcommands().empty()) run(*options);
  });
}

}  // namespace stagecraft
