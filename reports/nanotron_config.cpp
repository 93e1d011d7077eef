#include "models/text.hpp"
#include "reports/framework_config.hpp"

namespace stagecraft {
namespace {

constexpr std::string_view framework_name = "nanotron";

Error refused(const std::string& reason) { return framework::refused(framework_name, reason); }

// Llama's configuration class takes models without biases and experts, with rotary positions.
void check_network(const Transformer& t) {
  if (t.activation != ActivationKind::swiglu || t.norm != NormKind::rms_norm || t.qkv_bias || t.linear_bias ||
      t.position != PositionKind::rotary || t.head_size * t.heads != t.hidden) {
    throw refused(fmt::format("family '{}': expected a network shaped like Llama, without biases", t.family));
  }
  if (t.experts > 0) throw refused("experts: its Llama has none");
  if (t.latent) throw refused("latent attention: its Llama has none");
}

void check_layout(const Plan& plan) {
  const PlanLayout& layout = plan.layout;
  const std::string& schedule = plan.schedule.name;
  if (plan.ranks() > 1 && ((schedule != "1f1b" && schedule != "gpipe") || !framework::is_plain(plan.schedule))) {
    throw refused(fmt::format("schedule '{}': expected 1f1b or gpipe", printable(schedule)));
  }
  if (layout.zero > 1) throw refused(fmt::format("ZeRO {}: expected 0 or 1", layout.zero));
  if (layout.offload_optimizer || layout.offload_activations) throw refused("it offloads nothing");
  if (layout.overlap_tensor && !layout.sequence_parallel) {
    throw refused("overlapped tensor parallelism needs sequence parallelism");
  }
  if (framework::repeats_attention(plan)) throw refused("selective recomputation: expected none or full");
  if (plan.recompute == Recompute::full && !framework::recomputes_all(plan)) {
    throw refused("recomputation of some blocks only");
  }
  if (dimension_order(plan) != megatron_order) {
    throw refused("its devices are numbered tensor, context, data, pipeline; the plan's are not");
  }
}

std::string_view dtype(DataType precision) {
  switch (precision) {
    case DataType::bf16:
      return "bfloat16";
    case DataType::fp16:
      return "float16";
    case DataType::fp32:
    case DataType::tf32:
      return "float32";
    case DataType::fp8:
      break;
  }
  throw refused("precision fp8: expected bf16, fp16, fp32 or tf32");
}

std::string network_yaml(const Plan& plan, const Transformer& t) {
  return fmt::format(
      "model:\n"
      "  dtype: {}\n"
      "  model_config:\n"
      "    is_llama_config: true\n"
      "    hidden_act: silu\n"
      "    hidden_size: {}\n"
      "    intermediate_size: {}\n"
      "    max_position_embeddings: {}\n"
      "    num_attention_heads: {}\n"
      "    num_hidden_layers: {}\n"
      "    num_key_value_heads: {}\n"
      "    rms_norm_eps: {:.1e}\n"
      "    rope_theta: {:.1f}\n"
      "    tie_word_embeddings: {}\n"
      "    vocab_size: {}\n",
      dtype(plan.precision), t.hidden, t.ffn, t.max_sequence, t.heads, t.layers, t.kv_heads, t.norm_epsilon,
      t.rope_theta, t.tied_head, t.vocabulary);
}

std::string parallelism_yaml(const Plan& plan) {
  const PlanLayout& layout = plan.layout;
  return fmt::format(
      "parallelism:\n"
      "  dp: {}\n"
      "  pp: {}\n"
      "  tp: {}\n"
      "  context_parallel_size: {}\n"
      "  expert_parallel_size: {}\n"
      "  pp_engine: {}\n"
      "  tp_mode: {}\n"
      "  tp_linear_async_communication: {}\n"
      "  recompute_layer: {}\n",
      plan.replicas(), plan.ranks(), layout.tensor, layout.context, layout.expert,
      plan.schedule.name == "gpipe" ? "afab" : "1f1b", layout.sequence_parallel ? "REDUCE_SCATTER" : "ALL_REDUCE",
      layout.overlap_tensor, plan.recompute == Recompute::full);
}

}  // namespace

FrameworkConfig to_nanotron(const Plan& plan) {
  const Transformer& transformer = framework::transformer_of(plan, framework_name);
  check_network(transformer);
  check_layout(plan);
  FrameworkConfig config;
  if (plan.ranks() > 1) {
    config.remarks.push_back(fmt::format("nanotron cuts the stages itself; the plan has {} blocks in them",
                                         fmt::join(framework::blocks_by_stage(plan), ", ")));
  }
  if (plan.precision == DataType::tf32) {
    config.remarks.emplace_back("tf32: set torch.backends.cuda.matmul.allow_tf32");
  }
  config.remarks.push_back(framework::launch_remark(plan));
  config.remarks.emplace_back(
      "general, data_stages, tokenizer, model.init_method, tokens.train_steps and the learning rate are yours");
  config.text = framework::comments(config.remarks) + network_yaml(plan, transformer) + parallelism_yaml(plan) +
                fmt::format(
                    "optimizer:\n"
                    "  zero_stage: {}\n"
                    "  accumulate_grad_in_fp32: {}\n"
                    "  optimizer_factory:\n"
                    "    name: {}\n"
                    "tokens:\n"
                    "  sequence_length: {}\n"
                    "  micro_batch_size: {}\n"
                    "  batch_accumulation_per_replica: {}\n",
                    plan.layout.zero, element_size(plan.precision) < Bytes(4),
                    plan.optimizer == Optimizer::adamw ? "adamW" : "sgd", plan.batch.sequence, plan.batch.microbatch,
                    plan.batch.microbatches);
  return config;
}

}  // namespace stagecraft
