// The full layout space as a user meets it: plan, simulate, export, refusals.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <regex>

#include "tests/support/process.hpp"

namespace stagecraft {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Layouts : public testing::Test {
 protected:
  Outcome run(const std::string& command) { return shell("stagecraft " + command, folder_.path()); }
  std::string out_of(const std::string& command) {
    const Outcome outcome = run(command);
    EXPECT_EQ(outcome.exit, 0) << command << "\n" << outcome.err;
    return outcome.out;
  }
  void expect_error(const std::string& command, int exit, const std::string& message) {
    const Outcome outcome = run(command);
    EXPECT_EQ(outcome.exit, exit) << command;
    EXPECT_THAT(outcome.err, HasSubstr(message)) << command;
  }
  json file(const char* name) { return json::parse(std::ifstream(folder_.path() / name)); }

  static std::string file_text(const char* path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  static std::size_t longest_line(const std::string& text) {
    std::size_t longest = 0;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) longest = std::max(longest, line.size());
    return longest;
  }

  const std::string plan_ = "plan --network gpt3-1.3b --cluster dgx-a100:2 --global-batch 64 ";
  TemporaryFolder folder_;
};

TEST_F(Layouts, HaveFusedAttentionOnGpusThatComputeInBf16) {
  const auto is_fused = [&](const std::string& options) {
    out_of("plan --network gpt2 --global-batch 16 --confirm 0 -o fused.json " + options);
    return file("fused.json")["fused_attention"].get<bool>();
  };
  EXPECT_TRUE(is_fused("--cluster dgx-a100"));
  EXPECT_TRUE(is_fused("--cluster dgx-h100 --precision fp8"));
  EXPECT_FALSE(is_fused("--cluster dgx-a100 --fused-attention off"));
  EXPECT_FALSE(is_fused("--cluster dgx-a100 --precision fp32"));
  EXPECT_TRUE(is_fused("--cluster dgx-a100 --precision fp32 --fused-attention"));
  EXPECT_FALSE(is_fused("--cluster mixed-a100-v100")) << "V100s have none";
  EXPECT_FALSE(is_fused("--cluster local-cpu --stages 1"));
  expect_error(plan_ + "--fused-attention maybe", 2, "--fused-attention");
}

// Both engines leave what drivers and communication take.
TEST_F(Layouts, FitBesideWhatAGpuReserves) {
  const auto fullest = [&](const std::string& options) {
    const auto peaks =
        json::parse(out_of("plan --network llama-2-7b --cluster dgx-a100 --global-batch 64 --confirm 0 "
                           "--json --top 1 " +
                           options))["ranked"][0]["prediction"]["peak_memory_bytes"];
    return *std::max_element(peaks.begin(), peaks.end());
  };
  const std::string same = "--replicas 1 --micro-batch 1 --schedule 1f1b --recompute none ";
  const double cut = fullest(same + "--cuts 5,9,13,17,21,25,29"), laid_out = fullest(same + "--pipeline 8 --tensor 1");
  EXPECT_NEAR(cut / laid_out, 1, 0.06) << cut << " " << laid_out;
}

// What is planned for a framework can be said in its configuration, and the plan says so.
TEST_F(Layouts, OfAFrameworkAreThoseThatItRuns) {
  const std::pair<const char*, const char*> frameworks[] = {{"megatron-core", "megatron"},
                                                            {"torchtitan", "torchtitan"},
                                                            {"megatron-deepspeed", "deepspeed"},
                                                            {"nanotron", "nanotron"}};
  for (const auto& [framework, target] : frameworks) {
    for (const char* job : {"--network llama-2-13b --cluster dgx-a100:4 --global-batch 64",
                            "--network llama-2-13b --cluster dgx-a100:4 --global-batch 96 --stages 4",
                            "--network llama-2-70b --cluster dgx-h100:16 --global-batch 128",
                            "--network llama-2-70b --cluster dgx-a100:8 --global-batch 1024 --objective memory"}) {
      const std::string command =
          fmt::format("plan {} --framework {} --confirm 0 --top 1 --json -o plan.json", job, framework);
      EXPECT_EQ(json::parse(out_of(command))["exports"][target], true) << command;
      EXPECT_EQ(run(fmt::format("export plan.json --to {} -o config", target)).exit, 0) << command;
    }
  }
  const std::string plan = "plan --network llama-2-13b --cluster dgx-a100:4 --global-batch 64 --confirm 0 ";
  EXPECT_THAT(out_of(plan + "--schedule zb-h1 --stages 4"),
              HasSubstr("exports to no other framework: megatron (schedule 'zb-h1'"));
  expect_error(plan + "--framework nanotron --schedule zb-h1", 2,
               "--schedule: expected what nanotron has, gpipe, 1f1b, got zb-h1");
  expect_error(plan + "--framework nanotron --zero 3", 2, "--zero: expected what nanotron has, 0, 1, got 3");
  expect_error(plan + "--framework megatron-deepspeed --zero 3 --tensor 2", 2, "--zero beside tensor parallelism");
  expect_error(plan + "--framework nanotron --recompute selective", 2, "--recompute: expected what nanotron has");
  expect_error(plan + "--framework nanotron --offload-optimizer on", 2, "--offload-optimizer: expected off");
  expect_error(plan + "--framework megatron-deepspeed --context 2", 2, "--context: expected 1");
  expect_error(plan + "--framework torchtitan --order ctdp", 2, "--order: expected what torchtitan has, tcdp");
}

TEST_F(Layouts, SayWhatTheMemoryIsMadeOf) {
  for (const char* options : {"--pipeline 2", "--pipeline 2 --offload-activations on"}) {
    std::string text = out_of(plan_ + "--confirm 0 " + options);
    text = text.substr(text.find("memory of rank "));
    text = text.substr(text.find("by the closed form"), text.find("USD") - text.find("by the closed form"));
    const std::regex size(R"(([0-9.]+)\s+(GiB|MiB))");
    std::vector<double> sizes;
    for (std::sregex_iterator at(text.begin(), text.end(), size), end; at != end; ++at) {
      sizes.push_back(std::stod((*at)[1]) / ((*at)[2] == "MiB" ? 1024 : 1));
    }
    ASSERT_EQ(sizes.size(), 7U) << text;
    EXPECT_NEAR(std::accumulate(sizes.begin() + 1, sizes.end(), 0.0), sizes.front(), 0.01 * sizes.front()) << text;
  }
}

// The plans of the fastest few by the closed form need more than it says, whole blocks on stages and all.
TEST_F(Layouts, FitAlsoWhereTheFirstOfThemDoNot) {
  const json best =
      json::parse(out_of("plan --network llama-2-70b --cluster dgx-h100:8 --global-batch 256 --tensor 8 "
                         "--schedule zb-2p --top 1 --confirm 1 --json"))["ranked"][0];
  EXPECT_LT(best["memory_bytes"], 80e9);
}

// Half of the nodes behind a port of 2 GB/s: little of the plan goes through it, and SimGrid finds what was foreseen.
TEST_F(Layouts, HeedASlowLinkBetweenTwoHalves) {
  json cluster = json::parse(out_of("show cluster dgx-a100:8 --json"));
  cluster["fabric"] = {{"nodes_per_leaf", 4}, {"uplink", {{"latency", "50 us"}, {"bandwidth", "2 GB/s"}}}};
  std::ofstream(folder_.path() / "halves.json") << cluster;
  const json best = json::parse(
      out_of("plan --network llama-2-70b --cluster halves.json --global-batch 256 --top 1 --json"))["ranked"][0];
  EXPECT_NEAR(best["step_s"].get<double>() / best["closed_form_step_s"].get<double>(), 1, 0.15) << best;
  const json whole = json::parse(
      out_of("plan --network llama-2-70b --cluster dgx-a100:8 --global-batch 256 --top 1 --json"))["ranked"][0];
  EXPECT_LT(best["step_s"].get<double>(), 1.25 * whole["step_s"].get<double>());
}

// nanotron overlaps nothing, and its constants are not Megatron-LM's.
TEST_F(Layouts, AreThoseOfTheFrameworkThatIsToRunThem) {
  const json usual = json::parse(out_of(plan_ + "--confirm 0 --json"));
  const json other = json::parse(out_of(plan_ + "--confirm 0 --json --framework nanotron"));
  EXPECT_EQ(usual["framework"], "megatron-core");
  EXPECT_EQ(other["framework"], "nanotron");
  EXPECT_THAT(usual["ranked"][0]["text"].get<std::string>(), HasSubstr("overlap="));
  EXPECT_GT(other["ranked"][0]["step_s"].get<double>(), usual["ranked"][0]["step_s"].get<double>());
  expect_error(plan_ + "--framework nanotrom", 2, "did you mean 'nanotron'");
}

TEST_F(Layouts, SayHowFarSuchPredictionsWereOff) {
  EXPECT_THAT(out_of(plan_ + "--confirm 0"),
              HasSubstr("published runs on 'A100-SXM4-80GB', each predicted with the constants of its framework"));
  EXPECT_GT(json::parse(out_of(plan_ + "--confirm 0 --json"))["published_errors"]["step_time"]["rows"], 500);
  const std::string h200 = out_of("plan --network gpt3-1.3b --cluster hgx-h200 --global-batch 64 --confirm 0");
  EXPECT_THAT(h200, HasSubstr("too few to say how far off"));
}

TEST_F(Layouts, HaveTensorWidthsOfTheirOwnOnUnlikeGpus) {
  const std::string plan =
      "plan --network llama-2-13b --cluster " PROJECT_FOLDER "/examples/h100-a100.json --global-batch 64 ";
  const json result = json::parse(out_of(plan + "--confirm 1 --json -o plan.json"));
  const json& best = result["ranked"][0];
  EXPECT_THAT(best["devices"].get<std::string>(), HasSubstr("-way "));
  EXPECT_EQ(json::parse(out_of("simulate plan.json --engine simgrid --json"))["step_time_s"],
            best["prediction"]["simgrid_step_s"]);
  const json whole = json::parse(out_of(plan + "--tensor 1 --confirm 0 --json"))["ranked"][0];
  EXPECT_LT(best["prediction"]["timeline_step_s"], whole["prediction"]["timeline_step_s"]);
  EXPECT_EQ(best["layers"].size(), best["stages"]);
  EXPECT_EQ(best["verdict"], "best");
  EXPECT_THAT(out_of("show plan plan.json"), HasSubstr("of 24 devices used"));
  // What tells plans apart is shown in full: devices, tensor widths, cuts.
  EXPECT_THAT(out_of(plan + "--confirm 0"),
              testing::AllOf(HasSubstr("\n   on " + best["devices"].get<std::string>() + "; layers "),
                             testing::Not(HasSubstr("~"))));
  expect_error("export plan.json --to megatron -o -", 2, "one tensor width for all ranks");
  expect_error(plan + "--tensor 16", 2, "1, 2, 4, 8; got 16");
  expect_error(plan + "--context 2", 2, "--context: only pipelines and replicas are planned here");
}

TEST_F(Layouts, ArePlannedSimulatedAndExported) {
  const json result =
      json::parse(out_of(plan_ + "--tensor 2 --pipeline 2 --schedule 1f1b --zero 1 --confirm 2 --json -o plan.json"));
  const json& best = result["ranked"][0];
  EXPECT_EQ(best["layout"]["tensor"], 2);
  EXPECT_GT(best["mfu"].get<double>(), 0.1);
  EXPECT_GT(best["prediction"]["simgrid_step_s"].get<double>(), 0);
  const json& counts = result["counts"];
  EXPECT_EQ(counts["points"].get<std::int64_t>(),
            counts["judged"].get<std::int64_t>() + counts["slower_widths"].get<std::int64_t>() +
                counts["slower"].get<std::int64_t>() + counts["too_large"].get<std::int64_t>() +
                counts["dominated"].get<std::int64_t>());

  const json plan = file("plan.json");
  EXPECT_EQ(plan["layout"]["tensor"], 2);
  EXPECT_EQ(plan["layout"]["zero"], 1);
  const json timeline = json::parse(out_of("simulate plan.json --json"));
  EXPECT_EQ(timeline["step_time_s"], best["prediction"]["timeline_step_s"]);
  const json simgrid = json::parse(out_of("simulate plan.json --engine simgrid --json"));
  EXPECT_EQ(simgrid["step_time_s"], best["prediction"]["simgrid_step_s"]);

  EXPECT_THAT(out_of("export plan.json --to megatron -o -"), HasSubstr("--tensor-model-parallel-size 2\n"));
  EXPECT_EQ(json::parse(out_of("export plan.json --to deepspeed -o -"))["train_batch_size"], 64);
  EXPECT_THAT(out_of("show plan plan.json"), HasSubstr("tensor 2"));
  out_of(plan_ + "--precision fp32 --tensor 2 --devices 2 --confirm 0 -o sharded.json");
  expect_error("run sharded.json --data sharded.json", 4, "in ways that the CPU backend does not run");
}

// What the layout splits is what runs, and every shard is in the trace.
TEST_F(Layouts, WithTensorParallelismRunHere) {
  std::ofstream(folder_.path() / "net.json") << R"({"name": "tiny", "transformer": {"family": "llama", "layers": 4,
      "hidden": 32, "heads": 4, "kv_heads": 2, "ffn": 48, "vocabulary": 256, "max_sequence": 32}})";
  std::ofstream(folder_.path() / "text.txt") << std::string(4000, 'x');
  out_of(
      "plan --network ./net.json --cluster local-cpu --devices 2 --global-batch 8 --sequence 32 --precision fp32 "
      "--micro-batch 2 --tensor 2 --pipeline 1 --data 1 --sequence-parallel on --recompute none -o plan.json");
  EXPECT_EQ(file("plan.json")["layout"], json::parse(R"({"tensor": 2, "sequence_parallel": true})"));
  out_of("simulate plan.json -o timeline.json");
  out_of("run plan.json --data text.txt --steps 3 --oversubscribe -o measured.json");
  const json measured = file("measured.json");
  EXPECT_EQ(measured["shards"], 2);
  EXPECT_EQ(measured["event_fields"].back(), "shard");
  EXPECT_EQ(measured["peak_memory_bytes"].size(), 2U);
  // Beside what a rank lays out, in so small a network, its messages under way count.
  const double foreseen = file("plan.json")["prediction"]["peak_memory_bytes"][0];
  EXPECT_NEAR(measured["peak_memory_bytes"][0].get<double>(), foreseen, 0.05 * foreseen);
  EXPECT_GT(json::parse(out_of("compare plan.json timeline.json measured.json --json"))["step_time_s"]["measured"], 0);
  EXPECT_THAT(out_of("export measured.json --to svg -o -"), HasSubstr("rank 0.1"));
  EXPECT_THAT(out_of("export measured.json --to perfetto -o -"), HasSubstr("shard 1"));
}

// Unless one is named: the best precision that all devices compute in, with a word where it is not bf16.
TEST_F(Layouts, AreInAPrecisionThatTheDevicesHave) {
  const Outcome old = run("plan --network gpt2 --cluster dgx1-v100 --global-batch 16 --confirm 0 --json");
  EXPECT_EQ(json::parse(old.out)["precision"], "fp16");
  EXPECT_EQ(old.err, "precision fp16, as device 'V100-SXM2-16GB' computes in fp32, fp16\n");
  const Outcome recent = run(plan_ + "--devices 1 --confirm 0 --json");
  EXPECT_EQ(json::parse(recent.out)["precision"], "bf16");
  EXPECT_EQ(recent.err, "");
}

TEST_F(Layouts, SayWhichFiguresOfTheClusterDoNotCount) {
  const std::string network = "plan --network gpt2 --global-batch 16 --confirm 0 --json --cluster ";
  EXPECT_EQ(run(network + "dgx-a100").err, "");
  std::string cluster = file_text(PROJECT_FOLDER "/models/presets/clusters/dgx-a100.json");
  cluster.replace(cluster.find("230 GB/s\""), 3, "600");
  std::ofstream(folder_.path() / "cluster.json") << cluster;
  EXPECT_THAT(run(network + "cluster.json").err,
              testing::StartsWith("links of 600 GB/s inside a node: taken as given, though the constants of "
                                  "'A100-SXM4-80GB' were fitted with 230 GB/s"));
}

TEST_F(Layouts, OfUnlikeGpusAreInAPrecisionThatAllHave) {
  const std::string plan =
      "plan --network gpt2 --cluster mixed-a100-v100 --global-batch 16 --confirm 0 --json -o p.json";
  const std::string note = "precision fp16, as device 'V100-SXM2-32GB' computes in fp32, fp16";
  EXPECT_THAT(json::parse(out_of(plan))["notes"], testing::Contains(note));
  EXPECT_EQ(file("p.json")["precision"], "fp16");
  // Named, it leaves out those that lack it.
  const json named = json::parse(out_of(plan + " --precision bf16"));
  EXPECT_THAT(named["notes"][0].get<std::string>(), HasSubstr("devices of type V100-SXM2-32GB are not used"));
  EXPECT_EQ(file("p.json")["precision"], "bf16");
}

TEST_F(Layouts, AreTheSameBytesEveryTime) {
  out_of(plan_ + "--devices 8 -o a.json");
  out_of(plan_ + "--devices 8 -o b.json");
  EXPECT_EQ(shell("cmp a.json b.json", folder_.path()).exit, 0);
}

TEST_F(Layouts, ArePricedWhenWrittenByHand) {
  out_of(plan_ + "--tensor 4 --devices 8 --confirm 0 -o plan.json");
  json plan = file("plan.json");
  const double planned = plan["prediction"]["timeline_step_s"];
  for (json& stage : plan["stages"]) stage.erase("cost");
  std::ofstream(folder_.path() / "hand.json") << plan;
  const Outcome outcome = run("simulate hand.json --json");
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("priced by the step model"));
  EXPECT_NEAR(json::parse(outcome.out)["step_time_s"].get<double>(), planned, 1e-9 * planned);
}

TEST_F(Layouts, AreExplained) {
  const std::string text =
      out_of(plan_ + "--devices 16 --explain --pareto --scaling 4,8,16 --confirm 1 --schedule 1f1b");
  for (const char* part : {"local links", "network latency", "2 anew", "Pareto front", "Strong scaling",
                           "a step, of which", "USD a step", " layouts: "}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  EXPECT_LE(longest_line(text), 100U);
}

// However long they are, within a hundred columns.
TEST_F(Layouts, OfTheFrontAreShownInFull) {
  const std::string plan =
      "plan --network gpt3-1.3b --cluster dgx-a100 --global-batch 64 --confirm 0 --pareto --order cdtp --pipeline 2 "
      "--recompute full --recompute-layers 12 --schedule interleaved-zero-bubble --offload-optimizer on "
      "--offload-activations on ";
  const std::string out = out_of(plan);
  EXPECT_LE(longest_line(out), 100U);
  std::istringstream words(out);
  std::string text;
  for (std::string word; words >> word;) text += word + " ";
  const json front = json::parse(out_of(plan + "--json"))["front"];
  std::size_t longest = 0;
  for (const json& point : front) {
    const std::string layout = std::regex_replace(point["text"].get<std::string>(), std::regex(" overlap=[a-z,]+"), "");
    longest = std::max(longest, layout.size());
    EXPECT_THAT(text, HasSubstr(layout + " "));
  }
  EXPECT_GT(longest, 80U);
}

TEST_F(Layouts, AreComparedInEachPrecisionThatIsNamed) {
  const std::string plan = "plan --network gpt3-1.3b --cluster dgx-h100 --global-batch 64 --tensor 2 --confirm 0 ";
  const json both = json::parse(out_of(plan + "--precision bf16,fp8 --json"));
  ASSERT_EQ(both["precisions"].size(), 2U);
  EXPECT_EQ(both["precision"], "fp8");
  EXPECT_LT(both["precisions"][1]["step_s"], both["precisions"][0]["step_s"]);
  EXPECT_THAT(out_of(plan + "--precision bf16,fp8"), HasSubstr("whether the network trains as well"));
  const json one = json::parse(out_of(plan + "--json"));
  EXPECT_EQ(one["precision"], "bf16");
}

TEST_F(Layouts, RecomputeAsFewBlocksAsEachRankNeeds) {
  const std::string plan =
      "plan --network gpt3-13b --cluster dgx-a100 --global-batch 64 --tensor 1 --pipeline 8 --schedule 1f1b "
      "--micro-batch 4 --offload-optimizer off --offload-activations off --confirm 0 --recompute full ";
  out_of(plan + "--recompute-layers fewest -o plan.json");
  EXPECT_EQ(file("plan.json")["layout"]["recomputed_layers"], "fewest");
  EXPECT_THAT(out_of("show plan plan.json"), HasSubstr("as few blocks as each rank needs"));
  EXPECT_EQ(run("simulate plan.json --json").exit, 0);
  expect_error("export plan.json --to megatron -o -", 2, "one number of recomputed blocks for all ranks");
  const json ranked = json::parse(out_of(plan + "--recompute-layers fewest --json"))["ranked"][0];
  const std::vector<int> counts = ranked["recomputed_by_rank"];
  ASSERT_EQ(counts.size(), 8U);
  EXPECT_GT(counts.front(), counts.back());
}

TEST_F(Layouts, TakeStagesByHand) {
  const std::string plan = plan_ + "--confirm 0 --tensor 2 --schedule 1f1b --order tcdp ";
  const auto blocks = [&] {
    std::vector<int> counts;
    const json written = file("plan.json");
    for (const json& stage : written["stages"]) {
      counts.push_back(stage["layers"][1].get<int>() - stage["layers"][0].get<int>());
    }
    return counts;
  };
  out_of(plan + "--cuts 6,12,19 --recompute full --recompute-layers 3,2,1,0 -o plan.json");
  EXPECT_EQ(blocks(), (std::vector<int>{6, 6, 7, 7})) << "embedding and 5 blocks, 6, 7, 6 blocks and head";
  EXPECT_EQ(file("plan.json")["layout"]["recomputed_layers"], json({3, 2, 1, 0}));
  const std::string shown = out_of("show plan plan.json");
  EXPECT_THAT(shown, HasSubstr("recomputes 3 2 1 0 blocks by rank"));
  EXPECT_LE(longest_line(shown), 100U);
  EXPECT_EQ(run("simulate plan.json --json").exit, 0);
  expect_error("export plan.json --to megatron -o -", 2, "one number of recomputed blocks for all ranks");
  const json ranked = json::parse(out_of(plan + "--recompute full --recompute-layers 3,2,1,0 --json"))["ranked"][0];
  EXPECT_EQ(ranked["recomputed_by_rank"], json({3, 2, 1, 0}));
  out_of(plan + "--cuts 6,12,19 -o plan.json");
  EXPECT_THAT(out_of("export plan.json --to megatron -o -"),
              HasSubstr("--pipeline-model-parallel-layout Ettttt|tttttt|ttttttt|ttttttL\n"));
  out_of(plan + "--pipeline 4 --first-stage-layers 3 --last-stage-layers 0 -o plan.json");
  EXPECT_EQ(blocks(), (std::vector<int>{1 + 3, 11, 10, 1}));
  expect_error(plan + "--recompute-layers 3,x", 2, "--recompute-layers: expected a number of blocks");
  expect_error(plan + "--cuts 9,6", 2, "cuts: expected rising layer positions");
}

TEST_F(Layouts, TakeSchedulesWithoutAClosedForm) {
  for (const char* schedule : {"hanayo", "bitpipe", "zb-v-auto", "interleaved-1f1b-torch", "searched"}) {
    const std::string options = plan_ + "--tensor 2 --pipeline 4 --confirm 1 --top 2 --schedule " + schedule;
    const json result = json::parse(out_of(options + " --json -o plan.json"));
    EXPECT_EQ(result["ranked"][0]["layout"]["schedule"], schedule);
    EXPECT_GT(result["ranked"][0]["terms_s"]["bubble"], 0) << schedule;
    EXPECT_EQ(result.contains("order_lower_bound_s"), std::string(schedule) == "searched");
    EXPECT_EQ(file("plan.json")["layout"]["tensor"], 2);
    EXPECT_EQ(run("simulate plan.json --json").exit, 0);
  }
  EXPECT_THAT(out_of(plan_ + "--tensor 2 --pipeline 2 --confirm 0 --schedule searched"), HasSubstr("lower bound "));
  expect_error(plan_ + "--tensor 2 --schedule pipedream", 2, "schedule 'pipedream' is no synchronous training");
}

TEST_F(Layouts, ScaleWeaklyWithTheBatch) {
  const json result = json::parse(out_of(plan_ + "--scaling 2,4,8 --weak --schedule 1f1b --confirm 0 --json"));
  std::vector<int> batches;
  for (const json& row : result["scaling"]) batches.push_back(row["global_batch"]);
  EXPECT_EQ(batches, (std::vector<int>{64, 128, 256}));
}

TEST_F(Layouts, SayWhatClashes) {
  expect_error(plan_ + "--tensor 5", 2, "--tensor: tensor 5 does not divide 16 heads");
  expect_error(plan_ + "--zero 3 --pipeline 16", 2, "--zero: expected 0 with one replica");
  expect_error(plan_ + "--expert 2", 2, "--expert: expected 1");
  expect_error(plan_ + "--order tcd", 2, "--order");
  expect_error(plan_ + "--schedule chimer", 2, "unknown schedule 'chimer' (did you mean 'chimera'?)");
  expect_error(plan_ + "--tensor 8 --pipeline 4", 3, "need 32 devices, but 16 can be used");
  expect_error("plan --network demo-gpt --cluster local-cpu --global-batch 8 --context 2", 2,
               "--context: only pipelines and replicas are planned here");
}

TEST_F(Layouts, SayWhatWouldFit) {
  expect_error(
      "plan --network gpt3-13b --cluster dgx-a100 --global-batch 8 --tensor 1 --pipeline 1 --zero 0 "
      "--offload-optimizer off",
      3, "fits, e.g.");
  expect_error("plan --network gpt3-175b --cluster dgx1-v100 --global-batch 8 --precision fp16", 3,
               "more or larger devices");
}

}  // namespace
}  // namespace stagecraft
