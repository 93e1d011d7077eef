#include "reports/report.hpp"

#include <memory>

#include "cli/command.hpp"
#include "cli/console.hpp"
#include "models/files.hpp"

namespace stagecraft {
namespace {

struct ReportOptions {
  std::vector<std::string> files;
  std::vector<std::string> outputs;
  std::string title;
};

void run(const ReportOptions& options) {
  for (const std::string& output : options.outputs) {
    if (!output.ends_with(".html") && !output.ends_with(".md")) {
      throw bad_input("--output: expected a name ending in .html or .md, got '{}'", printable(output));
    }
  }
  const Documents documents = load_documents(options.files);
  if (documents.predicted.empty() && !documents.measured) {
    throw bad_input("report: expected at least one trace among the files");
  }
  warn_of_mismatches(documents);
  ReportInput input;
  input.title = options.title;
  input.plan = documents.plan ? &*documents.plan : nullptr;
  input.predicted = documents.predicted;
  input.measured = documents.measured ? &*documents.measured : nullptr;
  for (const std::string& output : options.outputs) {
    write_file(output, output.ends_with(".html") ? html_report(input) : markdown_report(input));
    note("wrote " + output);
  }
}

}  // namespace

void add_report_command(CLI::App& app) {
  const auto options = std::make_shared<ReportOptions>();
  CLI::App* command = app.add_subcommand("report", "Write a page with comparison, timelines and losses");
  command->add_option("FILE", options->files, "A plan and traces, in any order: simulated ones and a measured one")
      ->required();
  command->add_option("-o,--output", options->outputs, "Name ending in .html or .md; may be given twice")
      ->required()
      ->allow_extra_args(false);
  command->add_option("--title", options->title, "Heading of the page");
  set_examples(*command, "  stagecraft report plan.json timeline.json measured.json -o report.html -o report.md");
  command->callback([options] { run(*options); });
}

}  // namespace stagecraft
