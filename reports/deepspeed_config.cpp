#include <nlohmann/json.hpp>

#include "models/text.hpp"
#include "reports/framework_config.hpp"

namespace stagecraft {
namespace {

constexpr std::string_view framework_name = "deepspeed";

Error refused(const std::string& reason) { return framework::refused(framework_name, reason); }

void check_parallelism(const Plan& plan) {
  const PlanLayout& layout = plan.layout;
  if (folds_experts(plan)) throw refused("experts over tensor-parallel devices: its expert groups are of replicas");
  if (layout.context > 1) throw refused("context parallelism of rings of keys and values is not there");
  if (plan.ranks() > 1) {
    if (plan.schedule.name != "1f1b" || !framework::is_plain(plan.schedule)) {
      throw refused(fmt::format("schedule '{}': its pipelines run 1f1b", printable(plan.schedule.name)));
    }
    if (layout.zero >= 2) throw refused("its pipelines go with ZeRO 0 and 1 only");
  } else if (layout.tensor > 1 && layout.zero == 3) {
    throw refused("its automatic tensor parallelism goes with ZeRO 0 to 2 only");
  }
}

Json zero_json(const PlanLayout& layout) {
  Json zero{{"stage", layout.zero}};
  if (layout.zero >= 1) zero["overlap_comm"] = layout.overlap_gradients;
  if (layout.offload_optimizer) {
    if (layout.zero == 0) throw refused("an offloaded optimizer needs ZeRO 1 or more");
    zero["offload_optimizer"] = {{"device", "cpu"}, {"pin_memory", true}};
  }
  return zero;
}

void add_precision(DataType precision, Json& json) {
  switch (precision) {
    case DataType::bf16:
      json["bf16"] = {{"enabled", true}};
      break;
    case DataType::fp16:
      json["fp16"] = {{"enabled", true}};
      break;
    case DataType::fp8:
      throw refused("precision fp8: expected bf16, fp16, fp32 or tf32");
    case DataType::fp32:
    case DataType::tf32:
      break;
  }
}

void add_recomputation(const Plan& plan, FrameworkConfig& config, Json& json) {
  if (framework::repeats_attention(plan)) throw refused("selective recomputation: expected none or full");
  if (plan.recompute != Recompute::full) return;
  if (!framework::recomputes_all(plan)) throw refused("recomputation of some blocks only");
  json["activation_checkpointing"] = {{"partition_activations", false},
                                      {"cpu_checkpointing", plan.layout.offload_activations}};
  config.remarks.emplace_back(plan.ranks() > 1
                                  ? "recomputation: PipelineModule(activation_checkpoint_interval=1)"
                                  : "recomputation: call deepspeed.checkpointing.checkpoint around each block");
}

void add_remarks(const Plan& plan, FrameworkConfig& config) {
  auto& remarks = config.remarks;
  if (plan.ranks() > 1) {
    remarks.push_back(fmt::format(
        "the pipeline is built in code: PipelineModule(topology=PipeModelDataParallelTopology(num_pp={}, num_mp={}, "
        "num_dp={}))",
        plan.ranks(), plan.layout.tensor, plan.replicas()));
    remarks.push_back(fmt::format("blocks by stage, for partition_method or LayerSpecs: {}",
                                  fmt::join(framework::blocks_by_stage(plan), " ")));
    if (plan.layout.tensor > 1)
      remarks.emplace_back("inside a pipeline the model's own layers must be tensor parallel");
  }
  if (plan.layout.expert > 1) {
    remarks.push_back(
        fmt::format("experts are built in code: deepspeed.moe.layer.MoE(ep_size={})", plan.layout.expert));
  }
  if (plan.precision == DataType::tf32) remarks.emplace_back("tf32: set torch.backends.cuda.matmul.allow_tf32");
  remarks.push_back(framework::launch_remark(plan));
}

}  // namespace

FrameworkConfig to_deepspeed(const Plan& plan) {
  framework::transformer_of(plan, framework_name);
  check_parallelism(plan);
  FrameworkConfig config;
  Json json{{"train_batch_size", plan.batch.global},
            {"train_micro_batch_size_per_gpu", plan.batch.microbatch},
            {"gradient_accumulation_steps", plan.batch.microbatches}};
  add_precision(plan.precision, json);
  json["zero_optimization"] = zero_json(plan.layout);
  if (plan.layout.tensor > 1 && plan.ranks() == 1) json["tensor_parallel"] = {{"autotp_size", plan.layout.tensor}};
  add_recomputation(plan, config, json);
  if (plan.layout.offload_activations && !json.contains("activation_checkpointing")) {
    throw refused("activations are offloaded with full recomputation only");
  }
  json["optimizer"] = {{"type", plan.optimizer == Optimizer::adamw ? "AdamW" : "SGD"}};
  add_remarks(plan, config);
  config.text = json.dump(2) + "\n";
  return config;
}

}  // namespace stagecraft
