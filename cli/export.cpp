#include <array>
#include <memory>

#include "cli/command.hpp"
#include "cli/console.hpp"
#include "models/files.hpp"
#include "models/schedule/torch_csv.hpp"
#include "reports/perfetto.hpp"
#include "reports/svg.hpp"

namespace stagecraft {
namespace {

enum class Target { perfetto, torch_csv, svg };
constexpr std::array targets{std::pair<std::string_view, Target>{"perfetto", Target::perfetto},
                             std::pair<std::string_view, Target>{"torch-csv", Target::torch_csv},
                             std::pair<std::string_view, Target>{"svg", Target::svg}};

struct ExportOptions {
  std::vector<std::string> files;
  std::string to;
  std::string output;
  bool communication = false;
};

std::vector<Trace> all_traces(const Documents& documents) {
  std::vector<Trace> traces = documents.predicted;
  if (documents.measured) traces.push_back(*documents.measured);
  return traces;
}

std::string convert(const ExportOptions& options, const Documents& documents) {
  const std::vector<Trace> traces = all_traces(documents);
  const Plan* plan = documents.plan ? &*documents.plan : nullptr;
  switch (choose<Target>("--to", options.to, targets)) {
    case Target::perfetto:
      if (traces.empty()) throw bad_input("export --to perfetto: expected at least one trace");
      return to_perfetto(traces, plan);
    case Target::torch_csv:
      if (plan == nullptr) throw bad_input("export --to torch-csv: expected a plan");
      return to_torch_csv(plan->schedule,
                          options.communication ? TorchFormat::compute_comms : TorchFormat::compute_only);
    case Target::svg:
      if (traces.size() > 1)
        throw bad_input("export --to svg: expected one trace or a plan, got {} traces", traces.size());
      if (!traces.empty()) return to_svg(traces.front());
      if (plan == nullptr) throw bad_input("export --to svg: expected a trace or a plan");
      return to_svg(plan->schedule);
  }
  return {};
}

void run(const ExportOptions& options) {
  const std::string text = convert(options, load_documents(options.files));
  if (options.output == "-") {
    print(text);
  } else {
    write_file(options.output, text);
    note("wrote " + options.output);
  }
}

}  // namespace

void add_export_command(CLI::App& app) {
  const auto options = std::make_shared<ExportOptions>();
  CLI::App* command = app.add_subcommand("export", "Convert plans and traces to other tools' formats");
  command->add_option("FILE", options->files, "Traces and a plan, in any order")->required();
  command->add_option("--to", options->to, list_of<Target>(targets))->required();
  command->add_option("-o,--output", options->output, "File to write; '-' for standard output")->required();
  command->add_flag("--communication", options->communication,
                    "torch-csv: write sends and receives too (torch's compute_comms)");
  set_examples(*command,
               "  stagecraft export timeline.json measured.json --to perfetto -o trace.perfetto.json\n"
               "  stagecraft export plan.json --to torch-csv -o schedule.csv\n"
               "  stagecraft export measured.json --to svg -o pipeline.svg");
  command->callback([options] { run(*options); });
}

}  // namespace stagecraft
