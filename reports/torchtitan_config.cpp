#include <algorithm>
#include <array>

#include "models/text.hpp"
#include "reports/framework_config.hpp"

namespace stagecraft {
namespace {

constexpr std::string_view framework_name = "torchtitan";

// What torch.distributed.pipelining calls our schedules.
constexpr std::array<std::pair<std::string_view, std::string_view>, 7> schedules{
    {{"gpipe", "GPipe"},
     {"1f1b", "1F1B"},
     {"interleaved-1f1b-torch", "Interleaved1F1B"},
     {"looped-bfs", "LoopedBFS"},
     {"interleaved-zero-bubble", "InterleavedZeroBubble"},
     {"zb-v", "ZBVZeroBubble"},
     {"dualpipe-v", "DualPipeV"}}};

class TorchtitanToml {
 public:
  explicit TorchtitanToml(const Plan& plan)
      : plan_(plan), transformer_(framework::transformer_of(plan, framework_name)) {}

  FrameworkConfig write() {
    network();
    training();
    parallelism();
    pipeline();
    recomputation();
    remarks_.push_back(framework::launch_remark(plan_));
    return {framework::comments(remarks_) + text_, remarks_};
  }

 private:
  void section(std::string_view name) { text_ += fmt::format("{}[{}]\n", text_.empty() ? "" : "\n", name); }
  template <class T>
  void add(std::string_view field, const T& value) {
    text_ += fmt::format("{} = {}\n", field, value);
  }
  void add_text(std::string_view field, std::string_view value) { text_ += fmt::format("{} = \"{}\"\n", field, value); }
  Error refused(const std::string& reason) const { return framework::refused(framework_name, reason); }

  void network() {
    const Transformer& t = transformer_;
    if (t.activation != ActivationKind::swiglu || t.norm != NormKind::rms_norm || t.qkv_bias || t.linear_bias) {
      throw refused(fmt::format("it has no model of family '{}'", printable(t.family)));
    }
    section("model");
    add_text("name", "llama3");
    remarks_.push_back(fmt::format(
        "model.flavor: name one with {} layers, dimension {}, {} heads ({} for keys and values), feed-forward {}, "
        "vocabulary {}; register it if there is none",
        t.layers, t.hidden, t.heads, t.kv_heads, t.ffn, t.vocabulary));
    if (t.experts > 0) throw refused("its Llama has no experts of this shape");
    if (t.latent) throw refused("its Llama has no latent attention");
    section("optimizer");
    if (plan_.optimizer != Optimizer::adamw) throw refused("its optimizers are Adam and AdamW");
    add_text("name", "AdamW");
  }

  void training() {
    const Batch& batch = plan_.batch;
    section("training");
    // A pipeline cuts the local batch into its micro-batches; without one, gradients accumulate up to the global batch.
    add("local_batch_size", plan_.ranks() > 1 ? batch.microbatch * batch.microbatches : batch.microbatch);
    add("global_batch_size", batch.global);
    add("seq_len", batch.sequence);
    switch (plan_.precision) {
      case DataType::bf16:
        add_text("mixed_precision_param", "bfloat16");
        break;
      case DataType::fp32:
      case DataType::tf32:
        add_text("mixed_precision_param", "float32");
        break;
      case DataType::fp16:
        throw refused("precision fp16: expected bf16, fp32 or tf32");
      case DataType::fp8:
        add_text("mixed_precision_param", "bfloat16");
        remarks_.emplace_back("fp8: add the float8 converter under model.converters");
    }
    if (plan_.precision == DataType::tf32) {
      remarks_.emplace_back("tf32: set torch.backends.cuda.matmul.allow_tf32");
    }
    if (plan_.layout.offload_optimizer) {
      if (plan_.layout.zero < 2) throw refused("offloading belongs to FSDP, that is ZeRO 2 or 3");
      add("enable_cpu_offload", true);
      remarks_.emplace_back("enable_cpu_offload moves parameters and gradients to the host, too");
    }
    if (plan_.layout.offload_activations) throw refused("it has no option that offloads activations");
  }

  void parallelism() {
    const PlanLayout& layout = plan_.layout;
    if (layout.zero == 1) throw refused("ZeRO 1: FSDP shards gradients as well (ZeRO 2) or everything (ZeRO 3)");
    if (layout.tensor > 1 && !layout.sequence_parallel) {
      throw refused("tensor parallelism is always sequence parallel there");
    }
    if (dimension_order(plan_) != megatron_order) {
      throw refused("its devices are numbered tensor, context, data, pipeline; the plan's are not");
    }
    section("parallelism");
    add("data_parallel_replicate_degree", layout.zero == 0 ? plan_.replicas() : 1);
    add("data_parallel_shard_degree", layout.zero == 0 ? 1 : plan_.replicas());
    if (layout.zero > 0) add_text("fsdp_reshard_after_forward", layout.zero == 3 ? "always" : "never");
    add("tensor_parallel_degree", layout.tensor);
    add("enable_async_tensor_parallel", layout.overlap_tensor);
    if (layout.overlap_tensor) remarks_.emplace_back("enable_async_tensor_parallel takes effect with compilation only");
    add("context_parallel_degree", layout.context);
    if (layout.context > 1) remarks_.emplace_back("weights are sharded over context-parallel ranks as well");
    add("pipeline_parallel_degree", plan_.ranks());
  }

  void pipeline() {
    if (plan_.ranks() == 1) return;
    const ComputeSchedule& schedule = plan_.schedule;
    // Megatron-LM's order is torch's where the micro-batches divide over the ranks.
    std::string name = schedule.name;
    if (name == "interleaved-1f1b" && schedule.microbatches % plan_.ranks() == 0) name += "-torch";
    const auto known =
        std::find_if(schedules.begin(), schedules.end(), [&](const auto& entry) { return entry.first == name; });
    if (known != schedules.end() && framework::is_plain(schedule)) {
      add_text("pipeline_parallel_schedule", known->second);
    } else {
      add_text("pipeline_parallel_schedule", "PipelineScheduleMulti");
      add_text("pipeline_parallel_schedule_csv", "schedule.csv");
      remarks_.emplace_back("schedule.csv: write it with 'stagecraft export PLAN --to torch-csv'");
    }
    add("pipeline_parallel_microbatch_size", plan_.batch.microbatch);
    text_ += "module_fqns_per_model_part = [\n";
    std::int64_t block = 0;
    const auto blocks = framework::blocks_by_stage(plan_);
    for (std::size_t s = 0; s < blocks.size(); ++s) {
      std::vector<std::string> names;
      if (s == 0) names.emplace_back("\"tok_embeddings\"");
      for (std::int64_t i = 0; i < blocks[s]; ++i) names.push_back(fmt::format("\"layers.{}\"", block++));
      if (s + 1 == blocks.size()) names.insert(names.end(), {"\"norm\"", "\"output\""});
      text_ += fmt::format("  [{}],\n", join(names));
    }
    text_ += "]\n";
  }

  void recomputation() {
    section("activation_checkpoint");
    if (plan_.recompute == Recompute::none || (plan_.recompute == Recompute::selective && plan_.fused_attention)) {
      return add_text("mode", "none");
    }
    if (plan_.recompute == Recompute::selective) {
      throw refused("selective recomputation of an unfused attention: its attention is fused");
    }
    if (framework::recomputes_all(plan_)) return add_text("mode", "full");
    const auto blocks = framework::blocks_by_stage(plan_);
    const std::int64_t on_rank = transformer_.layers / plan_.ranks(), wanted = plan_.layout.recomputed_layers;
    if (wanted == 0) return add_text("mode", "none");
    if (on_rank % wanted != 0) {
      throw refused(
          fmt::format("it recomputes every n-th block; {} of {} blocks a rank are not that", wanted, on_rank));
    }
    add_text("mode", "selective");
    add_text("selective_ac_option", std::to_string(on_rank / wanted));
  }

  const Plan& plan_;
  const Transformer& transformer_;
  std::string text_;
  std::vector<std::string> remarks_;
};

}  // namespace

FrameworkConfig to_torchtitan(const Plan& plan) { return TorchtitanToml(plan).write(); }

}  // namespace stagecraft
