#include "reports/framework_config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "models/cluster/cluster.hpp"
#include "models/error.hpp"
#include "models/network/layer_graph.hpp"

namespace stagecraft {
namespace {

using testing::HasSubstr;
using testing::Not;

// Where each option name is documented, so that a renamed one is found by looking there.
constexpr const char* megatron_parallelism =
    "docs.nvidia.com/megatron-core/developer-guide/latest: user guide, parallelism strategies; "
    "github.com/NVIDIA/Megatron-LM megatron/training/arguments.py";
constexpr const char* megatron_layout =
    "docs.nvidia.com/megatron-core/developer-guide/latest/user-guide/features/pipeline_parallel_layout.html";
constexpr const char* megatron_fsdp = "github.com/NVIDIA/Megatron-LM docs: Megatron-FSDP, required configurations";
constexpr const char* megatron_network = "github.com/NVIDIA/Megatron-LM megatron/training/arguments.py: network size";
const std::map<std::string, std::string> megatron_options{
    {"--num-layers", megatron_network},
    {"--hidden-size", megatron_network},
    {"--ffn-hidden-size", megatron_network},
    {"--num-attention-heads", megatron_network},
    {"--kv-channels", megatron_network},
    {"--group-query-attention", megatron_network},
    {"--num-query-groups", megatron_network},
    {"--vocab-size", megatron_network},
    {"--max-position-embeddings", megatron_network},
    {"--position-embedding-type", megatron_network},
    {"--rotary-base", megatron_network},
    {"--normalization", megatron_network},
    {"--norm-epsilon", megatron_network},
    {"--swiglu", megatron_network},
    {"--disable-bias-linear", megatron_network},
    {"--add-qkv-bias", megatron_network},
    {"--untie-embeddings-and-output-weights", megatron_network},
    {"--attention-dropout", megatron_network},
    {"--hidden-dropout", megatron_network},
    {"--num-experts", megatron_network},
    {"--moe-router-topk", megatron_network},
    {"--multi-latent-attention", megatron_network},
    {"--q-lora-rank", megatron_network},
    {"--kv-lora-rank", megatron_network},
    {"--qk-head-dim", megatron_network},
    {"--qk-pos-emb-head-dim", megatron_network},
    {"--v-head-dim", megatron_network},
    {"--qk-layernorm", megatron_network},
    {"--rope-type", megatron_network},
    {"--moe-shared-expert-intermediate-size", megatron_network},
    {"--moe-ffn-hidden-size", megatron_network},
    {"--moe-layer-freq", megatron_network},
    {"--expert-tensor-parallel-size", megatron_parallelism},
    {"--attention-backend", megatron_network},
    {"--seq-length", megatron_network},
    {"--micro-batch-size", megatron_parallelism},
    {"--global-batch-size", megatron_parallelism},
    {"--bf16", megatron_parallelism},
    {"--fp16", megatron_parallelism},
    {"--fp8-format", megatron_parallelism},
    {"--tensor-model-parallel-size", megatron_parallelism},
    {"--pipeline-model-parallel-size", megatron_parallelism},
    {"--context-parallel-size", megatron_parallelism},
    {"--expert-model-parallel-size", megatron_parallelism},
    {"--moe-token-dispatcher-type", megatron_network},
    {"--sequence-parallel", megatron_parallelism},
    {"--use-tp-pp-dp-mapping", megatron_parallelism},
    {"--num-virtual-stages-per-pipeline-rank", megatron_parallelism},
    {"--pipeline-model-parallel-layout", megatron_layout},
    {"--recompute-granularity", megatron_parallelism},
    {"--recompute-method", megatron_parallelism},
    {"--recompute-num-layers", megatron_parallelism},
    {"--optimizer", megatron_parallelism},
    {"--use-distributed-optimizer", megatron_parallelism},
    {"--use-megatron-fsdp", megatron_fsdp},
    {"--data-parallel-sharding-strategy", megatron_fsdp},
    {"--no-gradient-accumulation-fusion", megatron_fsdp},
    {"--ckpt-format", megatron_fsdp},
    {"--optimizer-cpu-offload", "github.com/NVIDIA/Megatron-LM docs: optimizer CPU offload"},
    {"--use-precision-aware-optimizer", "github.com/NVIDIA/Megatron-LM docs: optimizer CPU offload"},
    {"--overlap-grad-reduce", megatron_parallelism},
    {"--overlap-param-gather", megatron_parallelism},
    {"--tp-comm-overlap", megatron_parallelism},
    {"--no-overlap-p2p-communication", megatron_parallelism},
};

constexpr const char* torchtitan_job = "github.com/pytorch/torchtitan torchtitan/config/job_config.py";
const std::map<std::string, std::string> torchtitan_fields{
    {"model.name", torchtitan_job},
    {"optimizer.name", torchtitan_job},
    {"training.local_batch_size", torchtitan_job},
    {"training.global_batch_size", torchtitan_job},
    {"training.seq_len", torchtitan_job},
    {"training.mixed_precision_param", torchtitan_job},
    {"training.enable_cpu_offload", torchtitan_job},
    {"parallelism.data_parallel_replicate_degree", torchtitan_job},
    {"parallelism.data_parallel_shard_degree", torchtitan_job},
    {"parallelism.fsdp_reshard_after_forward", torchtitan_job},
    {"parallelism.tensor_parallel_degree", torchtitan_job},
    {"parallelism.enable_async_tensor_parallel", torchtitan_job},
    {"parallelism.context_parallel_degree", torchtitan_job},
    {"parallelism.pipeline_parallel_degree", torchtitan_job},
    {"parallelism.pipeline_parallel_schedule", torchtitan_job},
    {"parallelism.pipeline_parallel_schedule_csv", torchtitan_job},
    {"parallelism.pipeline_parallel_microbatch_size", torchtitan_job},
    {"parallelism.module_fqns_per_model_part", "github.com/pytorch/torchtitan torchtitan/config/configs.py"},
    {"activation_checkpoint.mode", torchtitan_job},
    {"activation_checkpoint.selective_ac_option", torchtitan_job},
};

constexpr const char* deepspeed_json = "deepspeed.ai/docs/config-json";
const std::map<std::string, std::string> deepspeed_fields{
    {"train_batch_size", deepspeed_json},
    {"train_micro_batch_size_per_gpu", deepspeed_json},
    {"gradient_accumulation_steps", deepspeed_json},
    {"bf16.enabled", deepspeed_json},
    {"fp16.enabled", deepspeed_json},
    {"zero_optimization.stage", deepspeed_json},
    {"zero_optimization.overlap_comm", deepspeed_json},
    {"zero_optimization.offload_optimizer.device", deepspeed_json},
    {"zero_optimization.offload_optimizer.pin_memory", deepspeed_json},
    {"tensor_parallel.autotp_size", "deepspeed.ai/tutorials/autotp-training"},
    {"activation_checkpointing.partition_activations", deepspeed_json},
    {"activation_checkpointing.cpu_checkpointing", deepspeed_json},
    {"optimizer.type", deepspeed_json},
};

constexpr const char* nanotron_parallelism =
    "github.com/huggingface/nanotron src/nanotron/config/parallelism_config.py";
constexpr const char* nanotron_config = "github.com/huggingface/nanotron src/nanotron/config/config.py";
constexpr const char* nanotron_models = "github.com/huggingface/nanotron src/nanotron/config/models_config.py";
const std::map<std::string, std::string> nanotron_fields{
    {"model.dtype", nanotron_config},
    {"model.model_config.is_llama_config", nanotron_models},
    {"model.model_config.hidden_act", nanotron_models},
    {"model.model_config.hidden_size", nanotron_models},
    {"model.model_config.intermediate_size", nanotron_models},
    {"model.model_config.max_position_embeddings", nanotron_models},
    {"model.model_config.num_attention_heads", nanotron_models},
    {"model.model_config.num_hidden_layers", nanotron_models},
    {"model.model_config.num_key_value_heads", nanotron_models},
    {"model.model_config.rms_norm_eps", nanotron_models},
    {"model.model_config.rope_theta", nanotron_models},
    {"model.model_config.tie_word_embeddings", nanotron_models},
    {"model.model_config.vocab_size", nanotron_models},
    {"parallelism.dp", nanotron_parallelism},
    {"parallelism.pp", nanotron_parallelism},
    {"parallelism.tp", nanotron_parallelism},
    {"parallelism.context_parallel_size", nanotron_parallelism},
    {"parallelism.expert_parallel_size", nanotron_parallelism},
    {"parallelism.pp_engine", nanotron_parallelism},
    {"parallelism.tp_mode", nanotron_parallelism},
    {"parallelism.tp_linear_async_communication", nanotron_parallelism},
    {"parallelism.recompute_layer", nanotron_parallelism},
    {"optimizer.zero_stage", nanotron_config},
    {"optimizer.accumulate_grad_in_fp32", nanotron_config},
    {"optimizer.optimizer_factory.name", nanotron_config},
    {"tokens.sequence_length", nanotron_config},
    {"tokens.micro_batch_size", nanotron_config},
    {"tokens.batch_accumulation_per_replica", nanotron_config},
};

// A Llama of 8 blocks on 2 ranks of 2 tensor-parallel A100, twice.
Plan llama_plan() {
  Plan plan;
  plan.network = load_network("demo-llama");
  Transformer& transformer = *plan.network.transformer;
  transformer.layers = 8;
  plan.network.graph = build_graph(transformer);
  plan.cluster = load_cluster("dgx-a100");
  plan.batch = {16, 2, 4, 64};
  plan.fused_attention = true;
  plan.layout.tensor = 2;
  plan.layout.sequence_parallel = true;
  ParallelLayout layout;
  layout.pipeline = layout.tensor = layout.data = 2;
  plan.devices = devices_of(layout);
  plan.order = topological_order(plan.network.graph);
  plan.stages = {{{0, 5}, RankId{0}, {}, {}}, {{5, 10}, RankId{1}, {}, {}}};
  plan.schedule = make_schedule("1f1b", {2, 1, 4});
  validate(plan, "plan");
  return plan;
}

// The same with two stages a rank of 1, 3, 2 and 2 blocks.
Plan interleaved_plan() {
  Plan plan = llama_plan();
  plan.stages = {{{0, 2}, RankId{0}, {}, {}},
                 {{2, 5}, RankId{1}, {}, {}},
                 {{5, 7}, RankId{0}, {}, {}},
                 {{7, 10}, RankId{1}, {}, {}}};
  plan.schedule = make_schedule("interleaved-1f1b", {2, 2, 4});
  validate(plan, "plan");
  return plan;
}

// One rank, everything sharded over four replicas.
Plan sharded_plan(int zero) {
  Plan plan = llama_plan();
  plan.layout = {};
  plan.layout.zero = static_cast<std::uint8_t>(zero);
  plan.layout.overlap_gradients = plan.layout.overlap_parameters = true;
  plan.batch = {16, 2, 2, 64};
  ParallelLayout layout;
  layout.data = 4;
  plan.devices = devices_of(layout);
  plan.stages = {{{0, 10}, RankId{0}, {}, {}}};
  plan.schedule = make_schedule("1f1b", {1, 1, 2});
  plan.recompute = Recompute::full;
  validate(plan, "plan");
  return plan;
}

std::string complaint(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    return error.what();
  }
  return {};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line[0] != '#') lines.push_back(line);
  }
  return lines;
}

std::vector<std::string> toml_fields(const std::string& text) {
  std::vector<std::string> fields;
  std::string section;
  for (const std::string& line : lines_of(text)) {
    if (line[0] == '[') section = line.substr(1, line.find(']') - 1);
    if (const auto equals = line.find(" = "); line[0] != ' ' && equals != std::string::npos) {
      fields.push_back(section + "." + line.substr(0, equals));
    }
  }
  return fields;
}

// Mappings of two blanks an indent, as to_nanotron writes them.
std::vector<std::string> yaml_fields(const std::string& text) {
  std::vector<std::string> fields, path;
  for (const std::string& line : lines_of(text)) {
    const std::size_t indent = line.find_first_not_of(' '), colon = line.find(':');
    path.resize(indent / 2);
    path.push_back(line.substr(indent, colon - indent));
    if (colon + 1 == line.size()) continue;
    std::string field;
    for (const std::string& name : path) field += (field.empty() ? "" : ".") + name;
    fields.push_back(field);
  }
  return fields;
}

void collect(const Json& json, const std::string& prefix, std::vector<std::string>& fields) {
  for (const auto& [name, value] : json.items()) {
    if (value.is_object()) {
      collect(value, prefix + name + ".", fields);
    } else {
      fields.push_back(prefix + name);
    }
  }
}

TEST(Frameworks, KnowEveryOptionNameFromDocumentation) {
  std::vector<Plan> plans{llama_plan(), interleaved_plan(), sharded_plan(0), sharded_plan(1), sharded_plan(3)};
  plans[0].layout.overlap_tensor = true;
  plans[1].recompute = Recompute::full;
  plans[1].layout.recomputed_layers = 2;
  plans[3].precision = DataType::fp16;
  plans[4].layout.offload_optimizer = true;
  for (const char* name : {"gpt2", "qwen2.5-7b", "mixtral-8x7b"}) {
    Plan plan = sharded_plan(0);
    plan.network = load_network(name);
    plan.order = topological_order(plan.network.graph);
    plan.stages.front().layers.last = static_cast<std::int64_t>(plan.order.size());
    plans.push_back(std::move(plan));
  }
  int written = 0;
  const auto each = [&](const std::function<std::vector<std::string>(const Plan&)>& names_in,
                        const std::map<std::string, std::string>& documented) {
    for (const Plan& plan : plans) {
      try {
        for (const std::string& name : names_in(plan)) EXPECT_TRUE(documented.contains(name)) << name;
        ++written;
      } catch (const Error&) {  // what a framework refuses is looked at below
      }
    }
  };
  each(
      [](const Plan& plan) {
        std::vector<std::string> names;
        for (const std::string& line : lines_of(to_megatron(plan).text))
          names.push_back(line.substr(0, line.find(' ')));
        return names;
      },
      megatron_options);
  each([](const Plan& plan) { return toml_fields(to_torchtitan(plan).text); }, torchtitan_fields);
  each([](const Plan& plan) { return yaml_fields(to_nanotron(plan).text); }, nanotron_fields);
  each(
      [](const Plan& plan) {
        std::vector<std::string> names;
        collect(Json::parse(to_deepspeed(plan).text), "", names);
        return names;
      },
      deepspeed_fields);
  EXPECT_GE(written, 15) << "of plans that a framework takes";
}

TEST(MegatronConfig, SaysHowAShardedPipelineRuns) {
  const std::string text = to_megatron(llama_plan()).text;
  for (const char* line :
       {"--tensor-model-parallel-size 2\n", "--pipeline-model-parallel-size 2\n", "--sequence-parallel\n",
        "--micro-batch-size 2\n", "--global-batch-size 16\n", "--seq-length 64\n", "--num-layers 8\n", "--bf16\n",
        "--swiglu\n", "--normalization RMSNorm\n", "# start 8 processes on one node\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("--use-distributed-optimizer")));
  EXPECT_THAT(text, Not(HasSubstr("--pipeline-model-parallel-layout"))) << "four blocks in each stage";
}

TEST(MegatronConfig, WritesUnevenStagesAsALayout) {
  EXPECT_THAT(to_megatron(interleaved_plan()).text, HasSubstr("--pipeline-model-parallel-layout Et|ttt|tt|ttL\n"));
}

TEST(MegatronConfig, SaysHowManyBlocksRecompute) {
  Plan plan = llama_plan();
  plan.recompute = Recompute::full;
  EXPECT_THAT(to_megatron(plan).text, HasSubstr("--recompute-method uniform\n--recompute-num-layers 1\n"));
  plan.layout.recomputed_layers = 3;
  EXPECT_THAT(to_megatron(plan).text, HasSubstr("--recompute-method block\n--recompute-num-layers 3\n"));
}

TEST(MegatronConfig, SaysLatentAttentionAndFoldedExperts) {
  Plan plan = llama_plan();
  Transformer& t = *plan.network.transformer;
  t.latent =
      LatentAttention{.query_rank = 24, .kv_rank = 16, .nope_head_size = 8, .rope_head_size = 4, .value_head_size = 6};
  t.kv_heads = t.heads;
  t.head_size = 12;
  t.experts = 4;
  t.experts_per_token = 2;
  t.shared_experts = 2;
  t.dense_layers = 3;
  t.dense_ffn = 8 * t.ffn;
  plan.network.graph = build_graph(t);
  plan.order = topological_order(plan.network.graph);
  plan.layout.expert = 4;  // on 2 tensor-parallel devices of 2 replicas
  validate(plan, "plan");
  const std::string text = to_megatron(plan).text;
  for (const std::string& line :
       {std::string("--multi-latent-attention\n--q-lora-rank 24\n--kv-lora-rank 16\n--qk-head-dim 8\n"
                    "--qk-pos-emb-head-dim 4\n--v-head-dim 6\n"),
        fmt::format("--ffn-hidden-size {}\n", t.dense_ffn), fmt::format("--moe-ffn-hidden-size {}\n", t.ffn),
        fmt::format("--moe-shared-expert-intermediate-size {}\n", 2 * t.ffn),
        std::string("--moe-layer-freq ([0]*3+[1]*5)\n"),
        std::string("--expert-model-parallel-size 4\n--moe-token-dispatcher-type alltoall\n"
                    "--expert-tensor-parallel-size 1\n")}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("--kv-channels")));
  for (const std::string& line : lines_of(text)) {
    EXPECT_TRUE(megatron_options.contains(line.substr(0, line.find(' ')))) << line;
  }
  EXPECT_THAT(complaint([&] { to_deepspeed(plan); }), HasSubstr("experts over tensor-parallel devices"));
  plan.layout.expert = 2;
  EXPECT_THAT(to_megatron(plan).text, Not(HasSubstr("--expert-tensor-parallel-size")));
  t.experts = t.experts_per_token = t.shared_experts = t.dense_layers = 0;
  EXPECT_THAT(complaint([&] { to_torchtitan(plan); }), HasSubstr("no latent attention"));
  plan.layout.expert = 4;
  t.experts = 4;
  plan.layout.sequence_parallel = false;
  EXPECT_THAT(complaint([&] { validate(plan, "plan"); }),
              HasSubstr("layout.expert: expected a divisor of replicas * context = 2, or sequence parallelism, got 4"));
}

TEST(MegatronConfig, RefusesWhatItCannotRun) {
  Plan plan = llama_plan();
  plan.layout.overlap_parameters = true;
  EXPECT_EQ(complaint([&] { to_megatron(plan); }),
            "export --to megatron: overlapped parameter gathers need ZeRO 1 and overlapped gradient reductions");
  plan = llama_plan();
  plan.schedule = make_schedule("gpipe", {2, 1, 4});
  EXPECT_EQ(complaint([&] { to_megatron(plan); }),
            "export --to megatron: schedule 'gpipe': expected 1f1b or interleaved-1f1b");
  plan = llama_plan();
  plan.layout.offload_activations = true;
  EXPECT_THAT(complaint([&] { to_megatron(plan); }), HasSubstr("offloads all activations"));
  plan = llama_plan();
  std::swap(plan.devices[0], plan.devices[3]);
  EXPECT_THAT(complaint([&] { to_megatron(plan); }), HasSubstr("devices are numbered"));
  plan = llama_plan();
  plan.cluster.device_types.front().group = 4;
  EXPECT_THAT(complaint([&] { to_megatron(plan); }),
              HasSubstr("is a group of 4 devices, and the framework has one tensor width for all ranks"));
}

TEST(MegatronConfig, KnowsTheOrderWithReplicasLast) {
  Plan plan = llama_plan();
  ParallelLayout layout;
  layout.pipeline = layout.tensor = layout.data = 2;
  layout.order = {Dimension::tensor, Dimension::context, Dimension::pipeline, Dimension::data};
  plan.devices = devices_of(layout);
  EXPECT_THAT(to_megatron(plan).text, HasSubstr("--use-tp-pp-dp-mapping\n"));
}

TEST(TorchtitanConfig, NamesTheModulesOfEveryStage) {
  const std::string text = to_torchtitan(interleaved_plan()).text;
  EXPECT_THAT(text, HasSubstr("pipeline_parallel_schedule = \"Interleaved1F1B\"\n"));
  EXPECT_THAT(text, HasSubstr("local_batch_size = 8\n")) << "four micro-batches of two";
  EXPECT_THAT(text, HasSubstr("  [\"tok_embeddings\", \"layers.0\"],\n"
                              "  [\"layers.1\", \"layers.2\", \"layers.3\"],\n"
                              "  [\"layers.4\", \"layers.5\"],\n"
                              "  [\"layers.6\", \"layers.7\", \"norm\", \"output\"],\n"));
}

TEST(TorchtitanConfig, ShardsAsZeroSays) {
  EXPECT_THAT(to_torchtitan(sharded_plan(0)).text,
              HasSubstr("data_parallel_replicate_degree = 4\ndata_parallel_shard_degree = 1\n"));
  EXPECT_THAT(to_torchtitan(sharded_plan(2)).text, HasSubstr("fsdp_reshard_after_forward = \"never\"\n"));
  EXPECT_THAT(to_torchtitan(sharded_plan(3)).text,
              HasSubstr("data_parallel_shard_degree = 4\nfsdp_reshard_after_forward = \"always\"\n"));
  EXPECT_THAT(complaint([] { to_torchtitan(sharded_plan(1)); }), HasSubstr("ZeRO 1"));
}

TEST(TorchtitanConfig, ShardsBesideAPipelineAsOnlyItDoes) {
  Plan plan = llama_plan();
  plan.layout.zero = 3;
  EXPECT_THAT(to_torchtitan(plan).text,
              HasSubstr("data_parallel_shard_degree = 2\nfsdp_reshard_after_forward = \"always\"\n"));
  EXPECT_THAT(to_torchtitan(plan).text, HasSubstr("pipeline_parallel_degree = 2\n"));
  EXPECT_THAT(complaint([&] { to_megatron(plan); }), HasSubstr("ZeRO 2 and 3, its FSDP, are not for pipelines"));
  EXPECT_THAT(complaint([&] { to_deepspeed(plan); }), HasSubstr("its pipelines go with ZeRO 0 and 1 only"));
  EXPECT_THAT(complaint([&] { to_nanotron(plan); }), HasSubstr("ZeRO 3: expected 0 or 1"));
}

TEST(TorchtitanConfig, TakesOtherOrdersFromAFile) {
  Plan plan = llama_plan();
  plan.schedule.ranks = make_schedule("gpipe", {2, 1, 4}).ranks;  // another order under the same name
  EXPECT_THAT(to_torchtitan(plan).text, HasSubstr("pipeline_parallel_schedule_csv = \"schedule.csv\"\n"));
}

TEST(DeepSpeedConfig, MultipliesOut) {
  const FrameworkConfig config = to_deepspeed(sharded_plan(3));
  const Json json = Json::parse(config.text);
  EXPECT_EQ(json["train_batch_size"], 16);
  EXPECT_EQ(json["train_micro_batch_size_per_gpu"].get<int>() * json["gradient_accumulation_steps"].get<int>() * 4, 16);
  EXPECT_EQ(json["zero_optimization"]["stage"], 3);
  EXPECT_EQ(json["zero_optimization"]["overlap_comm"], true);
  EXPECT_EQ(json["bf16"]["enabled"], true);
  EXPECT_EQ(json["activation_checkpointing"]["cpu_checkpointing"], false);
}

TEST(DeepSpeedConfig, SaysWhatIsBuiltInCode) {
  EXPECT_THAT(to_deepspeed(llama_plan()).remarks,
              testing::Contains(HasSubstr("PipeModelDataParallelTopology(num_pp=2, num_mp=2, num_dp=2)")));
  Plan plan = llama_plan();
  plan.layout.zero = 2;
  EXPECT_THAT(complaint([&] { to_deepspeed(plan); }), HasSubstr("its pipelines go with ZeRO 0 and 1 only"));
}

TEST(NanotronConfig, NestsItsSections) {
  const std::string text = to_nanotron(llama_plan()).text;
  EXPECT_THAT(text, HasSubstr("parallelism:\n  dp: 2\n  pp: 2\n  tp: 2\n"));
  EXPECT_THAT(text, HasSubstr("  tp_mode: REDUCE_SCATTER\n"));
  EXPECT_THAT(text, HasSubstr("  batch_accumulation_per_replica: 4\n"));
  EXPECT_THAT(complaint([] { to_nanotron(sharded_plan(2)); }), HasSubstr("ZeRO 2: expected 0 or 1"));
}

TEST(Frameworks, RefuseGraphs) {
  Plan plan = sharded_plan(0);
  plan.network.transformer.reset();
  for (const auto convert : {to_megatron, to_torchtitan, to_deepspeed, to_nanotron}) {
    EXPECT_THAT(complaint([&] { convert(plan); }), HasSubstr("is a graph"));
  }
}

}  // namespace
}  // namespace stagecraft
