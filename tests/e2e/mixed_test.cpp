// Clusters of unlike nodes as a user meets them: what `plan` explains, prices and scales there.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "tests/support/process.hpp"

namespace stagecraft {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

class Mixed : public testing::Test {
 protected:
  Outcome run(const std::string& command) { return shell("stagecraft " + command, folder_.path()); }
  std::string out_of(const std::string& command) {
    const Outcome outcome = run(command);
    EXPECT_EQ(outcome.exit, 0) << command << "\n" << outcome.err;
    return outcome.out;
  }
  json answer(const std::string& command) { return json::parse(out_of(command + " --json")); }
  // The best plan's step on a cluster.
  double step_on(const json& cluster, const std::string& options) {
    std::ofstream(folder_.path() / "cluster.json") << cluster;
    return step(answer("plan --cluster ./cluster.json " + options)["ranked"][0]);
  }
  static double step(const json& plan) {
    const json& prediction = plan["prediction"];
    return prediction.contains("simgrid_step_s") ? prediction["simgrid_step_s"] : prediction["timeline_step_s"];
  }

  double step_of_best(const std::string& command) { return step(answer(command)["ranked"][0]); }

  // Two nodes of four devices, the second slower and smaller.
  json cluster() const {
    json all = json::parse(std::ifstream(PROJECT_FOLDER "/models/presets/clusters/mixed-a100-v100.json"));
    for (json& node : all["nodes"]) node["devices"][0]["count"] = node["nics"] = 4;
    return all;
  }
  void save(const json& cluster) const { std::ofstream(folder_.path() / "mixed.json") << cluster; }

  const std::string job_ = "--network gpt2 --global-batch 8 --precision fp16 --fused-attention off ";
  const std::string plan_ = "plan --cluster ./mixed.json " + job_;
  TemporaryFolder folder_;
};

json with_rates(json cluster, const std::function<void(json&)>& change) {
  for (json& node : cluster["nodes"]) change(node);
  return cluster;
}

// What "2 anew" and the like say is what `plan` says of the cluster with that property changed by hand.
TEST_F(Mixed, AreExplainedByPlansForChangedClusters) {
  const json base = cluster();
  save(base);
  for (const std::string confirm : {"--confirm 0", "--confirm 2"}) {
    const json all = answer(plan_ + "--explain " + confirm);
    const auto said = [&](const std::string& property, double factor, const char* key) {
      for (const json& what : all["what_if"]) {
        if (what["property"] == property && what["factor"] == factor) return what.value(key, 0.0);
      }
      return -1.0;
    };
    const json network = with_rates(base, [](json& node) {
      const double rate = std::stod(node["network"]["bandwidth"].get<std::string>());
      node["network"]["bandwidth"] = std::to_string(rate / 2) + " GB/s";
    });
    EXPECT_NEAR(said("network", 0.5, "best_layout_step_s") / step_on(network, job_ + confirm), 1, 1e-6);
    json memory = base;
    memory["device_types"]["A100-SXM4-80GB"]["memory"] = "160 GB";
    memory["device_types"]["V100-SXM2-32GB"]["memory"] = "64 GB";
    EXPECT_NEAR(said("memory", 2, "best_layout_step_s") / step_on(memory, job_ + confirm), 1, 1e-6);
    json products = base;
    for (auto& [name, type] : products["device_types"].items()) {
      for (auto& peak : type["peak"]) peak = std::to_string(1.1 * std::stod(peak.get<std::string>())) + " TFLOP/s";
    }
    // Made for the old cluster, priced for the new one.
    out_of(plan_ + confirm + " -o plan.json");
    json plan = json::parse(std::ifstream(folder_.path() / "plan.json"));
    for (auto& [name, type] : plan["cluster"]["device_types"].items()) {
      for (auto& peak : type["peak"]) {
        const std::string text = peak;
        peak = std::to_string(1.1 * std::stod(text)) + text.substr(text.find(' '));
      }
    }
    for (json& stage : plan["stages"]) stage.erase("cost");
    std::ofstream(folder_.path() / "priced.json") << plan;
    const std::string engine = confirm == "--confirm 0" ? "timeline" : "simgrid";
    const double same = json::parse(out_of("simulate priced.json --json --engine " + engine))["step_time_s"];
    EXPECT_NEAR(said("products", 1.1, "same_layout_step_s") / same, 1, 1e-6);
    EXPECT_LT(same, step(all["ranked"][0]));
  }
}

TEST_F(Mixed, AreExplainedByPlansForOtherNodes) {
  const json base = cluster();
  save(base);
  const json all = answer(plan_ + "--explain --confirm 0");
  const auto said = [&](const std::string& change) -> json {
    for (const json& other : all["what_if_nodes"]) {
      if (other["change"] == change) return other;
    }
    return {};
  };
  // A third node keeps them unlike, so that the same engine plans; it is too slow and small to be of use.
  json other = base;
  other["nodes"][1] = base["nodes"][0];
  other["nodes"][1]["name"] = "v100";
  const json alike = said("all nodes like 'a100'");
  EXPECT_EQ(alike["devices"], 8);
  json snail = base["device_types"]["V100-SXM2-32GB"];
  snail["memory"] = "1 GB";
  snail["peak"] = {{"fp16", "1 GFLOP/s"}};
  const auto with_snail = [&](json all) {
    all["device_types"]["snail"] = snail;
    json node = base["nodes"][1];
    node["name"] = "snail";
    node["nics"] = 1;
    node["devices"] = json::array({{{"type", "snail"}, {"count", 1}}});
    all["nodes"].push_back(node);
    return all;
  };
  EXPECT_NEAR(alike["best_layout_step_s"].get<double>() / step_on(with_snail(other), job_ + "--confirm 0"), 1, 1e-6);
  json without = base;
  without["nodes"].erase(1);
  without["device_types"].erase("V100-SXM2-32GB");
  const json left = said("without node 'v100'");
  EXPECT_EQ(left["devices"], 4);
  EXPECT_NEAR(left["best_layout_step_s"].get<double>() / step_on(with_snail(without), job_ + "--confirm 0"), 1, 1e-6);
  EXPECT_GE(left["best_layout_step_s"], step(all["ranked"][0]));
  EXPECT_LT(alike["best_layout_step_s"], step(all["ranked"][0]));
}

TEST_F(Mixed, ArePlannedByTheObjective) {
  save(cluster());
  const std::string prices = "--price A100-SXM4-80GB=4,V100-SXM2-32GB=9 ";
  const auto best = [&](const std::string& options) { return answer(plan_ + prices + options)["ranked"][0]; };
  const json fast = best("--confirm 0"), cheap = best("--confirm 0 --objective cost"),
             small = best("--confirm 0 --objective memory");
  const auto share = [](const json& plan) {
    double most = 0;
    for (const json& memory : plan["device_memory"]) {
      most = std::max(most, memory["needed_bytes"].get<double>() / memory["available_bytes"].get<double>());
    }
    return most;
  };
  EXPECT_LT(step(fast), step(cheap));
  EXPECT_LT(cheap["usd_a_step"], fast["usd_a_step"]);
  EXPECT_LT(share(small), share(fast));
  // V100s are too dear.
  EXPECT_THAT(cheap["devices"].get<std::string>(), testing::Not(HasSubstr("V100")));
  EXPECT_DOUBLE_EQ(cheap["usd_a_step"], cheap["devices_used"].get<double>() * 4 * step(cheap) / 3600);
  const std::string text = out_of(plan_ + prices + "--objective cost");
  EXPECT_THAT(text, AllOf(HasSubstr("USD  timeline"), HasSubstr(" USD a step\n"), HasSubstr("dearer: +")));
}

TEST_F(Mixed, ScaleAsTheyArePlannedOnFewerDevices) {
  save(cluster());
  const json scaling = answer(plan_ + "--scaling 1,3,6,8 --confirm 1")["scaling"];
  ASSERT_EQ(scaling.size(), 4U);
  double before = 1e300;
  for (const json& row : scaling) {
    const int devices = row["devices"];
    const json best = answer(plan_ + "--confirm 1 --devices " + std::to_string(devices))["ranked"][0];
    EXPECT_EQ(row["step_s"], step(best)) << devices;
    EXPECT_EQ(row["on"], best["devices"]);
    EXPECT_LE(row["devices_used"], devices);
    EXPECT_LE(row["step_s"], before);
    before = row["step_s"];
  }
  EXPECT_EQ(scaling[0]["on"], "1x A100-SXM4-80GB");
  const json weak = answer(plan_ + "--scaling 2,4 --weak --confirm 0")["scaling"];
  EXPECT_EQ(weak[1]["global_batch"], 16);
  EXPECT_EQ(weak[1]["step_s"], step(json::parse(out_of("plan --cluster ./mixed.json --network gpt2 --global-batch 16 "
                                                       "--precision fp16 --fused-attention off --confirm 0 --devices 4 "
                                                       "--json"))["ranked"][0]));
  EXPECT_THAT(out_of(plan_ + "--scaling 2,4 --weak"), AllOf(HasSubstr("Weak scaling:"), HasSubstr("   P=")));
  const std::string large = "plan --cluster ./mixed.json --network gpt3-13b --global-batch 8 --confirm 0 --scaling 1,8";
  EXPECT_THAT(out_of(large), HasSubstr("   none fits\n"));
  EXPECT_EQ(answer(large)["scaling"][0]["fits"], false);
}

// Fastest of all, smallest of all, and on fewer devices what --devices finds.
TEST_F(Mixed, HaveAFrontOfPlansThatNoneBeats) {
  save(cluster());
  const json all = answer(plan_ + "--pareto --confirm 0");
  const json& front = all["front"];
  ASSERT_GT(front.size(), 5U);
  EXPECT_EQ(step(front[0]), step(all["ranked"][0]));
  const auto share = [](const json& plan) {
    double most = 0;
    for (const json& memory : plan["device_memory"]) {
      most = std::max(most, memory["needed_bytes"].get<double>() / memory["available_bytes"].get<double>());
    }
    return most;
  };
  double least = 1;
  for (const json& point : front) {
    least = std::min(least, share(point));
    for (const json& other : front) {
      const bool beats =
          step(other) < step(point) && share(other) <= share(point) && other["devices_used"] <= point["devices_used"];
      EXPECT_FALSE(beats) << other << "\n" << point;
    }
  }
  EXPECT_LE(least, 1.06 * share(answer(plan_ + "--objective memory --confirm 0")["ranked"][0]));
  const double on_two = step(answer(plan_ + "--devices 2 --confirm 0")["ranked"][0]);
  EXPECT_TRUE(std::any_of(front.begin(), front.end(),
                          [&](const json& point) { return step(point) == on_two && point["devices_used"] == 2; }));
  const std::string text = out_of(plan_ + "--pareto --confirm 0");
  EXPECT_THAT(text, AllOf(HasSubstr("Pareto front of devices, step time and"), HasSubstr("devices  timeline")));
}

// With a framework's constants, and only what it runs.
TEST_F(Mixed, ArePlannedForAFramework) {
  save(cluster());
  const auto best = [&](const std::string& options) { return answer(plan_ + "--confirm 0 " + options)["ranked"][0]; };
  const json deepspeed = best("--framework megatron-deepspeed"), core = best("--framework megatron-core");
  EXPECT_NE(step(deepspeed), step(core));
  const json nanotron = answer(plan_ + "--framework nanotron --confirm 0 --top 20");
  for (const json& ranked : nanotron["ranked"]) {
    EXPECT_NE(ranked["recompute"], "selective");
    const std::string types = ranked["devices"];
    int widths = 0;
    for (const char* width : {"2-way", "4-way"}) widths += types.find(width) == std::string::npos ? 0 : 1;
    const bool has_whole = types.find("x A100") != std::string::npos || types.find("x V100") != std::string::npos;
    widths += has_whole ? 1 : 0;
    EXPECT_EQ(widths, 1) << types;
  }
  EXPECT_EQ(best("--framework fsdp")["stages"], 1);
  // The optimizer's state is whole or shared, where the framework shares it beside pipelines.
  const double free = step(best("--framework megatron-lm"));
  EXPECT_EQ(free,
            std::min(step(best("--framework megatron-lm --zero 0")), step(best("--framework megatron-lm --zero 1"))));
  // What they say is what an executor of the plan finds.
  out_of(plan_ + "--framework megatron-deepspeed -o plan.json --tensor 2 --stages 3");
  const json plan = json::parse(std::ifstream(folder_.path() / "plan.json"));
  const json simulated = json::parse(out_of("simulate plan.json --json"));
  EXPECT_NEAR(simulated["step_time_s"].get<double>() / plan["prediction"]["simgrid_step_s"].get<double>(), 1, 1e-9);
  // Without sequence parallelism norms are whole on every device.
  const std::string wide = "--framework megatron-core --tensor 4 --stages 1 --micro-batch 4 --replicas 1 ";
  const json with = best(wide), without = best(wide + "--sequence-parallel off");
  EXPECT_LT(with["device_memory"][0]["needed_bytes"], without["device_memory"][0]["needed_bytes"]);
  EXPECT_THAT(out_of(plan_ + "--framework megatron-core"), HasSubstr("costs with the constants of megatron-core"));
}

// A group of devices counts as one in a plan's costs, not in what people read.
TEST_F(Mixed, HaveTheMemoryOfEachDevice) {
  save(cluster());
  const std::string widths = plan_ + "--tensor 4 --stages 2 --replicas 1 --confirm 0 -o plan.json";
  const json best = answer(widths)["ranked"][0];
  const json capacity{{"A100", 80e9}, {"V100", 32e9}};
  const std::string types = best["devices"];
  double fullest = 0, share = 0;
  for (std::size_t rank = 0; rank < 2; ++rank) {
    const json& memory = best["device_memory"][rank];
    const double needed = memory["needed_bytes"], available = memory["available_bytes"];
    EXPECT_DOUBLE_EQ(4 * needed, best["prediction"]["peak_memory_bytes"][rank]);
    const bool is_first = (types.find("A100") < types.find("V100")) == (rank == 0);
    EXPECT_DOUBLE_EQ(available, capacity[is_first ? "A100" : "V100"]);
    EXPECT_LT(needed, available);
    if (needed / available > share) {
      share = needed / available;
      fullest = needed;
    }
  }
  const std::string gib = fmt::format("{:#.3g} GiB", fullest / (1 << 30)), part = fmt::format("{:.0f} %", 100 * share);
  const std::string text = out_of(widths);
  EXPECT_THAT(text, testing::ContainsRegex(gib + " +" + part + "\n"));
  EXPECT_THAT(text, AllOf(HasSubstr("each mem."), HasSubstr("29.8 GiB"), testing::Not(HasSubstr("119 GiB"))));
  const json simulated = json::parse(out_of("simulate plan.json --json"));
  EXPECT_DOUBLE_EQ(simulated["device_memory_bytes"][0], best["device_memory"][0]["needed_bytes"]);
  out_of("simulate plan.json -o trace.json");
  EXPECT_THAT(out_of("compare plan.json trace.json"), HasSubstr(gib));
  out_of("report plan.json trace.json -o report.html");
  std::ifstream report(folder_.path() / "report.html");
  const std::string html{std::istreambuf_iterator<char>(report), {}};
  EXPECT_THAT(html, AllOf(HasSubstr(gib), HasSubstr("29.8 GiB"), testing::Not(HasSubstr("119 GiB"))));
}

TEST_F(Mixed, SayWhereTheStepOfEachRankGoes) {
  save(cluster());
  const json all = answer(plan_ + "--explain --confirm 0 --stages 4 --replicas 1");
  const json& best = all["ranked"][0];
  ASSERT_EQ(all["rank_times"].size(), 4U);
  double compute = 0;
  for (const json& rank : all["rank_times"]) {
    compute += rank["compute_s"].get<double>();
    const double step =
        rank["compute_s"].get<double>() + rank["optimizer_s"].get<double>() + rank["waits_s"].get<double>();
    EXPECT_NEAR(step, best["prediction"]["timeline_step_s"], 1e-9);
  }
  EXPECT_NEAR(compute / 4, best["terms_s"]["compute"], 1e-9);
  const std::string text = out_of(plan_ + "--explain --confirm 0");
  EXPECT_THAT(text, AllOf(HasSubstr("Where the step of each rank goes"), HasSubstr("without node 'v100'"),
                          HasSubstr("planned anew")));
}

// As many as were asked for, in the plan and in what is simulated and shown.
TEST_F(Mixed, RecomputeBlocksCountedByRank) {
  save(cluster());
  const std::string plan = plan_ + "--tensor 1 --confirm 0 --recompute full --recompute-layers ";
  const json answered = answer(plan + "1,0,3 -o p.json")["ranked"][0];
  const json written = json::parse(std::ifstream(folder_.path() / "p.json"));
  EXPECT_EQ(written["layout"]["recomputed_layers"], json({1, 0, 3}));
  EXPECT_EQ(answered["recomputed_by_rank"], json({1, 0, 3}));
  const double step = written["prediction"]["timeline_step_s"];
  EXPECT_DOUBLE_EQ(answer("simulate p.json")["step_time_s"], step);
  EXPECT_NEAR(answer("simulate p.json --engine simgrid")["step_time_s"].get<double>() / step, 1, 0.05);
  EXPECT_THAT(out_of("show plan p.json"), HasSubstr("recomputes 1 0 3 blocks by rank"));
  EXPECT_THAT(out_of(plan + "1,0,3"), HasSubstr("recompute=full:listed"));
  EXPECT_THAT(out_of(plan + "2 --pipeline 4"), HasSubstr("; recompute 2, 2, 2, 2"));
  // All fits without.
  EXPECT_EQ(step_of_best(plan + "fewest"), step_of_best(plan_ + "--tensor 1 --confirm 0 --recompute none"));
}

// What asks for no more than is planned anyway is no reason to plan nothing.
TEST_F(Mixed, TakeOptionsThatAskForWholeLayers) {
  save(cluster());
  EXPECT_EQ(step_of_best(plan_ + "--context 1 --expert 1 --offload-optimizer off --offload-activations off"),
            step_of_best(plan_));
}

// Whatever is fixed, nothing is faster than what is planned when it is left free.
TEST_F(Mixed, AreSearchedForAllThatIsNotFixed) {
  json tight = cluster();
  for (auto& [name, type] : tight["device_types"].items()) type["memory"] = "4 GiB";
  save(tight);
  const std::string plan = plan_ + "--confirm 0 ";
  const double best = step_of_best(plan);
  double least = 1e30;
  for (const char* fixed : {"--zero 0", "--zero 1", "--recompute none", "--recompute full", "--recompute-layers fewest",
                            "--recompute-layers 1", "--zero 1 --recompute-layers fewest", "--tensor 2"}) {
    const Outcome outcome = run(plan + fixed + " --json");
    if (outcome.exit != 0) continue;  // does not fit
    const double fixed_step = step(json::parse(outcome.out)["ranked"][0]);
    EXPECT_GE(fixed_step, best) << fixed;
    if (std::string(fixed).find("layers 1") == std::string::npos) least = std::min(least, fixed_step);
  }
  EXPECT_EQ(best, least);
}

}  // namespace
}  // namespace stagecraft
