#include "calibration/measurement.hpp"

#include <gmock/gmock.h>

#include "tests/calibration/rows.hpp"

namespace stagecraft {
namespace {

Measurement read(const std::map<std::string, std::string>& changes) {
  auto row = complete_row();
  for (const auto& [column, cell] : changes) row[column] = cell;
  const MeasurementTable table = read_rows({row});
  EXPECT_EQ(table.measurements.size(), 1u) << (table.skipped.empty() ? "" : table.skipped[0].reason);
  return table.measurements.at(0);
}

std::string reason(const std::map<std::string, std::string>& changes) {
  auto row = complete_row();
  for (const auto& [column, cell] : changes) row[column] = cell;
  const MeasurementTable table = read_rows({row});
  return table.skipped.empty() ? "read" : table.skipped[0].reason;
}

TEST(Measurement, SaysWhatTheRowSays) {
  const Measurement m = read({});
  EXPECT_EQ(to_string(m.layout), "p2 t2 d2 b4 m8 1f1b full");
  EXPECT_EQ(m.job.network.layers, 30);
  EXPECT_EQ(m.job.precision, DataType::fp16);
  EXPECT_FALSE(m.job.fused_attention);
  EXPECT_EQ(m.device, "A100-SXM4-80GB");
  EXPECT_EQ(m.framework, "megatron-lm");
  EXPECT_EQ(m.time_s, 4);
  EXPECT_EQ(m.machine.levels.size(), 1u);
}

TEST(Measurement, TakesTheDerivedTimeWhereNoneIsPublished) {
  EXPECT_EQ(read({{"iter_time_s", ""}, {"derived_iter_time_s", "3.5"}}).time_s, 3.5);
}

TEST(Measurement, ReadsHowPublicationsWriteThings) {
  EXPECT_EQ(read({{"vocab", "250k (250880 in the final run)"}}).job.network.vocabulary, 250'000);
  EXPECT_EQ(read({{"vpp", "3"}, {"schedule", "1F1B-interleaved"}, {"tp", "1"}, {"dp", "4"}}).layout.virtual_stages, 3);
  EXPECT_EQ(read({{"vpp", "one layer per chunk"}, {"schedule", "1F1B-I"}}).layout.virtual_stages, 15);
  EXPECT_EQ(read({{"dp_sharding", "distributed optimizer (zero1)"}}).layout.zero, 1);
  EXPECT_EQ(read({{"dp_sharding", "fsdp"}, {"pp", "1"}, {"dp", "4"}}).layout.zero, 3);
  const TrainingJob second = read({{"recompute", "none attention=flash_attention2"}}).job;
  EXPECT_TRUE(second.fused_attention && !second.first_flash && !second.eager_scores);
  const TrainingJob first = read({{"recompute", "full attention=flash_attentionv1.0.8"}}).job;
  EXPECT_TRUE(first.fused_attention && first.first_flash);
  const TrainingJob eager = read({{"recompute", "full attention=torch"}}).job;
  EXPECT_TRUE(!eager.fused_attention && eager.eager_scores);
  const TrainingJob fused_scores = read({{"recompute", "full attention=fused"}}).job;
  EXPECT_TRUE(!fused_scores.fused_attention && !fused_scores.eager_scores);
  EXPECT_EQ(read({{"seq_parallel", "1 if TP>1"}}).layout.sequence_parallel, true);
  EXPECT_EQ(read({{"dtype", "fp16/bf16 mixed (grads accumulated in 16-bit)"}}).machine.framework.gradient_bytes, 2);
  EXPECT_EQ(read({{"status", "oom"}, {"iter_time_s", ""}}).status, RunStatus::out_of_memory);
  EXPECT_EQ(*read({{"peak_mem_gb", "2"}, {"mem_kind", "max allocated GiB"}}).memory_bytes, 2147483648.0);
}

TEST(Measurement, BuildsTheNetworkFromItsDescription) {
  const std::map<std::string, std::string> sixteen = {
      {"n_gpus", "16"}, {"dp", "4"}, {"inter_node_link", "8x HDR IB 200Gb/s"}};
  const Measurement m = read(sixteen);
  ASSERT_EQ(m.machine.levels.size(), 2u);
  EXPECT_EQ(m.fabric, "infiniband");
  EXPECT_DOUBLE_EQ(m.nominal_rate, 25e9);
  EXPECT_EQ(node_rate("800 Gb/s per node (repo config)", 8), 100e9);
  EXPECT_EQ(node_rate("NDR IB 400Gb/s per GPU", 4), 200e9);
  EXPECT_EQ(node_rate("RoCE RDMA (rate not stated)", 8), std::nullopt);
}

TEST(Measurement, TakesTheSizesOfLatentAttentionFromTheModelsPreset) {
  const std::map<std::string, std::string> row = {{"model", "DeepSeek-V3 (4 layers)"},
                                                  {"layers", "4"},
                                                  {"hidden", "7168"},
                                                  {"heads", "128"},
                                                  {"kv_heads", "MLA"},
                                                  {"ffn_hidden", "18432"},
                                                  {"mlp", "swiglu"},
                                                  {"n_experts", "256"},
                                                  {"moe_topk", "8"},
                                                  {"moe_ffn_hidden", "2048"},
                                                  {"tied_embeddings", "0"},
                                                  {"vocab", "129280"},
                                                  {"notes", "some of it; DeepSeek-V3 rows use dense_layers=1"}};
  Transformer expected = *load_network("deepseek-v3").transformer;
  expected.layers = 4;
  expected.dense_layers = 1;
  expected.max_sequence = 2048;
  EXPECT_EQ(read(row).job.network, expected);
  const auto with = [&](const char* column, const char* cell) {
    auto changed = row;
    changed[column] = cell;
    return reason(changed);
  };
  EXPECT_EQ(with("notes", ""), "read");
  EXPECT_EQ(with("heads", "64"), "heads: '64' is not 128, that of the model's preset");
  EXPECT_EQ(with("notes", "dense_layers=4"), "no block with experts");
  EXPECT_EQ(with("model", "Longcat"),
            "multi-head latent attention: the ranks of its projections are not in the row, and no preset is of its "
            "model");
  EXPECT_EQ(with("model", "Mixtral-8x7B"), with("model", "Longcat"));
}

TEST(Measurement, SkipsRowsWithTheReason) {
  EXPECT_EQ(reason({{"micro_batch", ""}}), "micro_batch is not published");
  EXPECT_EQ(reason({{"vpp", "6 or 12"}}), "vpp: '6 or 12' is not one number");
  EXPECT_EQ(reason({{"gpu", "Abacus"}}), "gpu 'Abacus' has no preset");
  EXPECT_EQ(reason({{"framework", "Abacus"}}), "framework 'Abacus' has no preset");
  EXPECT_EQ(reason({{"dp", "3"}, {"n_gpus", "12"}}), "the global batch is no multiple of data x micro-batch");
  EXPECT_EQ(reason({{"n_gpus", "16"}}), "the parallel sizes do not multiply to n_gpus");
  EXPECT_EQ(reason({{"heads", "31"}}), "heads do not divide the hidden size");
  EXPECT_EQ(reason({{"dtype", "NVFP4"}}), "4-bit floating point is not modelled");
  EXPECT_EQ(reason({{"iter_time_s", ""}}), "neither time nor memory is published");
}

TEST(Measurement, NamesMissingColumns) {
  try {
    read_measurements(CsvTable("id,layers\n1,2\n", "few.csv"), load_calibration());
    ADD_FAILURE() << "was accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::StartsWith("few.csv: the columns hidden, heads, ffn_hidden,"));
  }
}

}  // namespace
}  // namespace stagecraft
