// Start here: the command line. Each subcommand is one file of this folder.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "cli/command.hpp"
#include "cli/console.hpp"
#include "models/version.hpp"

namespace stagecraft {
namespace {

int fail(const std::string& message, ErrorKind kind) {
  fmt::print(stderr, "error: {}\n", message);
  return static_cast<int>(kind);
}

// The innermost subcommand that was named, for the hint after a usage error.
const CLI::App& deepest(const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  return chosen.empty() ? app : deepest(*chosen.front());
}

std::string full_name(const CLI::App& app) {
  return app.get_parent() == nullptr ? app.get_name() : full_name(*app.get_parent()) + " " + app.get_name();
}

// Names that the innermost subcommand knows, for suggestions.
std::vector<std::string> known_words(const CLI::App& app) {
  std::vector<std::string> words;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    words.push_back(command->get_name());
  }
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
  }
  return words;
}

int usage_error(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = deepest(app);
  std::string message = error.what();
  // A word that nobody knows explains the error better than what is missing because of it.
  if (const auto extras = app.remaining(true); !extras.empty()) {
    const std::string& word = extras.front();
    message = fmt::format("'{}': no such {} of '{}'{}", printable(word), word.starts_with("-") ? "option" : "command",
                          full_name(command), did_you_mean(word.substr(0, word.find('=')), known_words(command)));
  }
  return fail(fmt::format("{}; see '{} --help'", message, full_name(command)), ErrorKind::bad_input);
}

int main(int argc, char** argv) {
  CLI::App app("Plans, simulates and runs pipeline-parallel training, and tells how close the predictions come.",
               "stagecraft");
  app.set_version_flag("--version", fmt::format("stagecraft {}", version));
  app.require_subcommand(1);
  app.formatter(std::make_shared<NarrowHelp>());
  app.get_formatter()->column_width(34);
  set_examples(app,
               "  stagecraft show network gpt2-xl\n"
               "  stagecraft plan --network llama-2-7b --cluster dgx-a100 --global-batch 64 -o plan.json\n"
               "  stagecraft simulate plan.json --engine simgrid -o trace.json\n"
               "\n"
               "Exit codes: 0 done, 1 a check failed, 2 bad input, 3 infeasible, 4 device, 5 internal.");
  add_plan_command(app);
  add_simulate_command(app);
  add_profile_command(app);
  add_run_command(app);
  add_compare_command(app);
  add_report_command(app);
  add_export_command(app);
  add_show_command(app);
  add_validate_command(app);
  add_calibrate_command(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& wanted) {  // --help, --version
    return app.exit(wanted);
  } catch (const CLI::ParseError& error) {
    return usage_error(app, error);
  } catch (const Error& error) {
    return fail(error.what(), error.kind());
  } catch (const std::bad_alloc&) {
    return fail("out of memory", ErrorKind::internal);
  } catch (const std::exception& error) {
    return fail(fmt::format("internal: {}; please report this with the command and its input", error.what()),
                ErrorKind::internal);
  }
  return 0;
}

}  // namespace
}  // namespace stagecraft

int main(int argc, char** argv) { return stagecraft::main(argc, argv); }
