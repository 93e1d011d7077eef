// A plan as the configuration of another training framework, so that what was planned here is trained there.
//
// What a format cannot say is refused (Error bad_input with the reason) where the step would be another one, and else
// a remark: a comment in the text where the format has comments. Data, tokenizer, learning rate and checkpoints are the
// user's; formats that insist on them are left without. Option names: tests/reports/framework_config_test.cpp has the
// documentation that each was checked against.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/plan.hpp"

namespace stagecraft {

struct FrameworkConfig {
  std::string text;
  std::vector<std::string> remarks;  // what the user still has to do, also in the text where it can have comments
};

// REQUIRES for all: a plan that validate() accepts. Throws bad_input for networks without a transformer.
// Arguments of Megatron-LM's pretrain_gpt.py, one option a line, remarks after '#'.
FrameworkConfig to_megatron(const Plan& plan);
// TOML of torchtitan.
FrameworkConfig to_torchtitan(const Plan& plan);
// The JSON that deepspeed.initialize() takes. JSON has no comments.
FrameworkConfig to_deepspeed(const Plan& plan);
// YAML of nanotron's run_train.py.
FrameworkConfig to_nanotron(const Plan& plan);

// Each of them by the name of its target, and why it cannot say the plan: empty where it can.
struct ExportTarget {
  std::string_view name;
  std::string refusal;
};
std::vector<ExportTarget> export_targets(const Plan& plan);

// What the four share.
namespace framework {

// The plan's transformer. Throws bad_input naming the framework when there is none.
const Transformer& transformer_of(const Plan& plan, std::string_view framework);
// An error that says which part of the plan the framework cannot express.
Error refused(std::string_view framework, const std::string& reason);
// Blocks by stage; the embedding is in the first one and the head in the last.
std::vector<std::int64_t> blocks_by_stage(const Plan& plan);
// Whether all blocks are recomputed, or none: partly otherwise.
bool recomputes_all(const Plan& plan);
// Whether selective recomputation repeats something: an attention core that is not fused.
bool repeats_attention(const Plan& plan);
// Whether the schedule's actions are those that its name and shape generate.
bool is_plain(const ComputeSchedule& schedule);
// "# " before every remark.
std::string comments(const std::vector<std::string>& remarks);
// How many processes to start.
std::string launch_remark(const Plan& plan);

}  // namespace framework
}  // namespace stagecraft
