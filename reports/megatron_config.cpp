#include <algorithm>

#include "models/text.hpp"
#include "reports/framework_config.hpp"

namespace stagecraft {
namespace {

constexpr std::string_view framework_name = "megatron";

class MegatronArguments {
 public:
  explicit MegatronArguments(const Plan& plan)
      : plan_(plan), transformer_(framework::transformer_of(plan, framework_name)) {}

  FrameworkConfig write() {
    network();
    batch();
    parallelism();
    stages();
    recomputation();
    optimizer();
    overlap();
    remarks_.push_back(framework::launch_remark(plan_));
    remarks_.emplace_back("data, tokenizer, learning rate and checkpoints are not part of a plan");
    return {framework::comments(remarks_) + text_, remarks_};
  }

 private:
  void flag(std::string_view option) { text_ += fmt::format("{}\n", option); }
  template <class T>
  void add(std::string_view option, const T& value) {
    text_ += fmt::format("{} {}\n", option, value);
  }
  Error refused(const std::string& reason) const { return framework::refused(framework_name, reason); }

  void network() {
    const Transformer& t = transformer_;
    if (t.head != HeadKind::language_model) throw refused("the network has no language model's head");
    add("--num-layers", t.layers);
    add("--hidden-size", t.hidden);
    add("--ffn-hidden-size", t.dense_layers > 0 ? t.dense_ffn : t.ffn);
    add("--num-attention-heads", t.heads);
    if (t.latent) {
      latent_attention(*t.latent);
    } else {
      add("--kv-channels", t.head_size);
    }
    if (t.kv_heads != t.heads) {
      flag("--group-query-attention");
      add("--num-query-groups", t.kv_heads);
    }
    add("--vocab-size", t.vocabulary);
    add("--max-position-embeddings", t.max_sequence);
    add("--position-embedding-type", t.position == PositionKind::rotary ? "rope" : "learned_absolute");
    if (t.position == PositionKind::rotary) add("--rotary-base", static_cast<std::int64_t>(t.rope_theta));
    add("--normalization", t.norm == NormKind::rms_norm ? "RMSNorm" : "LayerNorm");
    add("--norm-epsilon", t.norm_epsilon);
    if (t.activation == ActivationKind::swiglu) flag("--swiglu");
    if (t.linear_bias && !t.qkv_bias) throw refused("biases everywhere but on queries, keys and values");
    if (!t.linear_bias) flag("--disable-bias-linear");
    if (!t.linear_bias && t.qkv_bias) flag("--add-qkv-bias");
    if (!t.tied_head) flag("--untie-embeddings-and-output-weights");
    if (!t.dropout) {
      add("--attention-dropout", "0.0");
      add("--hidden-dropout", "0.0");
    }
    if (t.experts > 0) experts();
    add("--attention-backend", plan_.fused_attention ? "flash" : "unfused");
  }

  void latent_attention(const LatentAttention& latent) {
    flag("--multi-latent-attention");
    if (latent.query_rank > 0) add("--q-lora-rank", latent.query_rank);
    add("--kv-lora-rank", latent.kv_rank);
    add("--qk-head-dim", latent.nope_head_size);
    add("--qk-pos-emb-head-dim", latent.rope_head_size);
    add("--v-head-dim", latent.value_head_size);
    flag("--qk-layernorm");  // of the narrow vectors
    add("--rope-type", "rope");
  }

  void experts() {
    const Transformer& t = transformer_;
    add("--num-experts", t.experts);
    add("--moe-router-topk", t.experts_per_token);
    if (t.shared_experts > 0) add("--moe-shared-expert-intermediate-size", t.shared_experts * t.ffn);
    if (t.dense_layers == 0) return;
    add("--moe-ffn-hidden-size", t.ffn);
    add("--moe-layer-freq", fmt::format("([0]*{}+[1]*{})", t.dense_layers, t.layers - t.dense_layers));
  }

  void batch() {
    add("--seq-length", plan_.batch.sequence);
    add("--micro-batch-size", plan_.batch.microbatch);
    add("--global-batch-size", plan_.batch.global);
    switch (plan_.precision) {
      case DataType::bf16:
        return flag("--bf16");
      case DataType::fp16:
        return flag("--fp16");
      case DataType::fp8:
        flag("--bf16");
        return add("--fp8-format", "hybrid");
      case DataType::tf32:
        remarks_.emplace_back("tf32: set torch.backends.cuda.matmul.allow_tf32");
        break;
      case DataType::fp32:
        break;
    }
  }

  void parallelism() {
    add("--tensor-model-parallel-size", plan_.layout.tensor);
    add("--pipeline-model-parallel-size", plan_.ranks());
    if (plan_.layout.context > 1) add("--context-parallel-size", plan_.layout.context);
    if (plan_.layout.expert > 1) {
      add("--expert-model-parallel-size", plan_.layout.expert);
      add("--moe-token-dispatcher-type", "alltoall");  // as priced; its default gathers all tokens
    }
    if (folds_experts(plan_)) add("--expert-tensor-parallel-size", 1);
    if (plan_.layout.sequence_parallel) flag("--sequence-parallel");
    constexpr DimensionOrder data_last{Dimension::tensor, Dimension::context, Dimension::pipeline, Dimension::data};
    const auto order = dimension_order(plan_);
    if (order == data_last) return flag("--use-tp-pp-dp-mapping");
    if (order != megatron_order) {
      throw refused(
          "its devices are numbered tensor, context, data, pipeline or tensor, context, pipeline, data; the "
          "plan's are not");
    }
  }

  void stages() {
    const ComputeSchedule& schedule = plan_.schedule;
    const bool interleaved = schedule.name == "interleaved-1f1b";
    if ((!interleaved && schedule.name != "1f1b") || !framework::is_plain(schedule)) {
      throw refused(fmt::format("schedule '{}': expected 1f1b or interleaved-1f1b", printable(schedule.name)));
    }
    const auto blocks = framework::blocks_by_stage(plan_);
    if (std::adjacent_find(blocks.begin(), blocks.end(), std::not_equal_to<>()) == blocks.end()) {
      if (interleaved) add("--num-virtual-stages-per-pipeline-rank", schedule.stages / plan_.ranks());
      return;
    }
    // Letters in full, since a shell would expand the short form "t*3".
    std::string layout = "E";
    for (std::size_t s = 0; s < blocks.size(); ++s) {
      layout += (s > 0 ? "|" : "") + std::string(static_cast<std::size_t>(blocks[s]), 't');
    }
    add("--pipeline-model-parallel-layout", layout + "L");
  }

  void recomputation() {
    if (framework::repeats_attention(plan_)) {
      if (!framework::recomputes_all(plan_)) throw refused("selective recomputation is for all blocks of a rank");
      add("--recompute-granularity", "selective");
    }
    if (plan_.recompute != Recompute::full) return;
    add("--recompute-granularity", "full");
    const bool all = framework::recomputes_all(plan_);
    const std::int64_t chunks = static_cast<std::int64_t>(plan_.stages.size()) / plan_.ranks();
    if (!all && plan_.layout.recomputed_layers % chunks != 0) {
      throw refused(fmt::format("{} a rank do not divide over its {} stages",
                                counted(plan_.layout.recomputed_layers, "recomputed block"), chunks));
    }
    add("--recompute-method", all ? "uniform" : "block");
    add("--recompute-num-layers", all ? 1 : plan_.layout.recomputed_layers / chunks);
  }

  void optimizer() {
    const PlanLayout& layout = plan_.layout;
    add("--optimizer", plan_.optimizer == Optimizer::adamw ? "adam" : "sgd");
    if (layout.zero >= 1) flag("--use-distributed-optimizer");
    if (layout.zero >= 2) {
      if (plan_.ranks() > 1) throw refused("ZeRO 2 and 3, its FSDP, are not for pipelines: expected ZeRO 0 or 1");
      flag("--use-megatron-fsdp");
      add("--data-parallel-sharding-strategy", layout.zero == 2 ? "optim_grads" : "optim_grads_params");
      flag("--no-gradient-accumulation-fusion");
      add("--ckpt-format", "fsdp_dtensor");
    }
    if (layout.offload_optimizer) {
      if (layout.zero == 0) throw refused("an offloaded optimizer needs ZeRO 1 (--use-distributed-optimizer)");
      flag("--optimizer-cpu-offload");
      flag("--use-precision-aware-optimizer");
    }
    if (layout.offload_activations) throw refused("it has no option that offloads all activations of a pipeline rank");
  }

  void overlap() {
    const PlanLayout& layout = plan_.layout;
    const bool interleaved = plan_.stages.size() > static_cast<std::size_t>(plan_.ranks());
    if (layout.overlap_gradients) flag("--overlap-grad-reduce");
    if (layout.overlap_parameters) {
      if (layout.zero == 0 || !layout.overlap_gradients) {
        throw refused("overlapped parameter gathers need ZeRO 1 and overlapped gradient reductions");
      }
      flag("--overlap-param-gather");
    }
    if (layout.overlap_tensor) {
      if (!layout.sequence_parallel) throw refused("overlapped tensor parallelism needs sequence parallelism");
      flag("--tp-comm-overlap");
    }
    if (interleaved && !layout.overlap_pipeline) flag("--no-overlap-p2p-communication");
    if (!interleaved && layout.overlap_pipeline && plan_.ranks() > 1) {
      remarks_.emplace_back("messages between stages overlap computation with interleaved stages only");
    }
  }

  const Plan& plan_;
  const Transformer& transformer_;
  std::string text_;
  std::vector<std::string> remarks_;
};

}  // namespace

FrameworkConfig to_megatron(const Plan& plan) { return MegatronArguments(plan).write(); }

}  // namespace stagecraft
