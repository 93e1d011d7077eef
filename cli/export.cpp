#include <array>
#include <memory>

#include "cli/command.hpp"
#include "cli/console.hpp"
#include "models/files.hpp"
#include "models/schedule/torch_csv.hpp"
#include "reports/framework_config.hpp"
#include "reports/perfetto.hpp"
#include "reports/svg.hpp"
#include "runtime/checkpoint.hpp"
#include "runtime/hugging_face_weights.hpp"

namespace stagecraft {
namespace {

enum class Target { perfetto, torch_csv, svg, hugging_face, megatron, torchtitan, deepspeed, nanotron };
constexpr std::array<std::pair<std::string_view, Target>, 8> targets{{{"perfetto", Target::perfetto},
                                                                      {"torch-csv", Target::torch_csv},
                                                                      {"svg", Target::svg},
                                                                      {"hugging-face", Target::hugging_face},
                                                                      {"megatron", Target::megatron},
                                                                      {"torchtitan", Target::torchtitan},
                                                                      {"deepspeed", Target::deepspeed},
                                                                      {"nanotron", Target::nanotron}}};

struct ExportOptions {
  std::vector<std::string> files;
  std::string to;
  std::string output, checkpoint;
  bool communication = false;
};

std::vector<Trace> all_traces(const Documents& documents) {
  std::vector<Trace> traces = documents.predicted;
  if (documents.measured) traces.push_back(*documents.measured);
  return traces;
}

void export_weights(const ExportOptions& options, const Documents& documents) {
  if (!documents.plan || !documents.plan->network.transformer || options.checkpoint.empty()) {
    throw bad_input("export --to hugging-face: expected a plan, and --checkpoint with the weights");
  }
  const auto checkpoint = find_checkpoint(options.checkpoint);
  read_checkpoint_info(checkpoint, *documents.plan);
  export_to_hugging_face(checkpoint, *documents.plan->network.transformer, options.output);
  note(fmt::format("wrote {0}/model.safetensors and {0}/config.json", options.output));
}

const Plan& plan_of(const Documents& documents, std::string_view target) {
  if (!documents.plan) throw bad_input("export --to {}: expected a plan", target);
  return *documents.plan;
}

std::string convert(const ExportOptions& options, const Documents& documents) {
  const std::vector<Trace> traces = all_traces(documents);
  const Plan* plan = documents.plan ? &*documents.plan : nullptr;
  switch (choose<Target>("--to", options.to, targets)) {
    case Target::megatron:
      return to_megatron(plan_of(documents, options.to)).text;
    case Target::torchtitan:
      return to_torchtitan(plan_of(documents, options.to)).text;
    case Target::nanotron:
      return to_nanotron(plan_of(documents, options.to)).text;
    case Target::deepspeed: {
      const FrameworkConfig config = to_deepspeed(plan_of(documents, options.to));
      for (const std::string& remark : config.remarks) note(remark);  // JSON has no comments
      return config.text;
    }
    case Target::perfetto:
      if (traces.empty()) throw bad_input("export --to perfetto: expected at least one trace");
      return to_perfetto(traces, plan);
    case Target::torch_csv:
      return to_torch_csv(plan_of(documents, options.to).schedule,
                          options.communication ? TorchFormat::compute_comms : TorchFormat::compute_only);
    case Target::svg:
      if (traces.size() > 1)
        throw bad_input("export --to svg: expected one trace or a plan, got {} traces", traces.size());
      if (!traces.empty()) return to_svg(traces.front());
      if (plan == nullptr) throw bad_input("export --to svg: expected a trace or a plan");
      return to_svg(plan->schedule);
    case Target::hugging_face:
      break;
  }
  return {};
}

void run(const ExportOptions& options) {
  const Documents documents = load_documents(options.files);
  if (choose<Target>("--to", options.to, targets) == Target::hugging_face) return export_weights(options, documents);
  const std::string text = convert(options, documents);
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
  CLI::App* command = app.add_subcommand("export", "Convert plans, traces and weights to other tools' formats");
  command->add_option("FILE", options->files, "Traces and a plan, in any order")->required();
  command->add_option("--to", options->to, list_of<Target>(targets))->required();
  command->add_option("-o,--output", options->output, "File to write, '-' for standard output; hugging-face: a folder")
      ->required();
  command->add_option("--checkpoint", options->checkpoint,
                      "hugging-face: whose weights: a checkpoint of 'stagecraft run', or a folder: its newest");
  command->add_flag("--communication", options->communication,
                    "torch-csv: write sends and receives too (torch's compute_comms)");
  set_examples(*command,
               "  stagecraft export timeline.json measured.json --to perfetto -o trace.perfetto.json\n"
               "  stagecraft export plan.json --to torch-csv -o schedule.csv\n"
               "  stagecraft export measured.json --to svg -o pipeline.svg\n"
               "  stagecraft export plan.json --to hugging-face --checkpoint ckpt -o model/\n"
               "  stagecraft export plan.json --to megatron -o plan.args  # or torchtitan, deepspeed, nanotron");
  command->callback([options] { run(*options); });
}

}  // namespace stagecraft
