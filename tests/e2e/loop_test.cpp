// The whole loop as a user runs it: profile, plan, simulate, run, compare, report, export.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/process.hpp"

namespace stagecraft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Threads, and where there is MPI two processes.
std::vector<std::string> launchers() {
  std::vector<std::string> launchers{""};
#ifdef STAGECRAFT_MPIEXEC
  launchers.emplace_back("env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 " STAGECRAFT_MPIEXEC
                         " --oversubscribe -n 2 ");
#endif
  return launchers;
}

json json_of(const fs::path& path) { return json::parse(std::ifstream(path)); }

class Loop : public testing::Test {
 protected:
  // A network that trains in no time, and real text.
  void SetUp() override {
    std::ofstream(folder_.path() / "net.json") << R"({"name": "tiny", "transformer": {"family": "gpt2", "layers": 4,
      "hidden": 32, "heads": 2, "vocabulary": 256, "max_sequence": 32}})";
    std::string text;
    for (const char* file : {"README.md", "CONTRIBUTING.md"}) {
      std::ifstream in(fs::path(PROJECT_FOLDER) / file);
      text.append(std::istreambuf_iterator<char>(in), {});
    }
    std::ofstream(folder_.path() / "text.txt") << text;
  }

  Outcome expect_ok(const std::string& command) {
    Outcome outcome = shell(command, folder_.path());
    EXPECT_EQ(outcome.exit, 0) << command << "\n" << outcome.err;
    return outcome;
  }

  void make_plan(const std::string& extra, const std::string& output) {
    expect_ok(
        "stagecraft plan --network ./net.json --cluster local-cpu --global-batch 8 --sequence 32 --precision fp32 " +
        extra + " -o " + output);
  }

  TemporaryFolder folder_;
};

TEST_F(Loop, RunsFromProfileToReport) {
  expect_ok("stagecraft profile --network ./net.json --sequence 32 --seconds 2 --recompute none -o profile.json");
  make_plan("--stages 2 --schedule gpipe --micro-batch 2 --profile profile.json", "plan.json");
  expect_ok("stagecraft simulate plan.json -o timeline.json");
  expect_ok("stagecraft simulate plan.json --engine simgrid -o simgrid.json");
  const json timeline = json_of(folder_.path() / "timeline.json"), simgrid = json_of(folder_.path() / "simgrid.json");
  EXPECT_NEAR(timeline["step_times_s"][0].get<double>(), simgrid["step_times_s"][0].get<double>(), 1e-9);

  const json run = json::parse(
      expect_ok("stagecraft run plan.json --data text.txt --steps 30 --oversubscribe --json -o measured.json").out);
  ASSERT_EQ(run["losses"].size(), 30U);
  EXPECT_LT(run["losses"][29].get<double>(), run["losses"][0].get<double>() - 0.5) << "the loss must fall";

  const json compared =
      json::parse(expect_ok("stagecraft compare plan.json timeline.json simgrid.json measured.json --json").out);
  EXPECT_GT(compared["step_time_s"]["measured"].get<double>(), 0);
  EXPECT_GT(compared["step_time_s"]["timeline"].get<double>(), 0);
  expect_ok("stagecraft report plan.json timeline.json measured.json -o report.html -o report.md");
  EXPECT_GT(fs::file_size(folder_.path() / "report.html"), 5000U);
  expect_ok("stagecraft export timeline.json measured.json --to perfetto -o perfetto.json");
  EXPECT_FALSE(json_of(folder_.path() / "perfetto.json")["traceEvents"].empty());
  expect_ok("stagecraft export plan.json --to torch-csv -o schedule.csv");
  expect_ok("stagecraft show schedule schedule.csv");
  expect_ok("stagecraft export measured.json --to svg -o measured.svg");
}

TEST_F(Loop, PlansInThePrecisionAndAtTheLengthOfTheProfileOrElseOfDevicesAndNetwork) {
  expect_ok(
      "stagecraft profile --network ./net.json --sequence 16 --seconds 1 --micro-batch 2 --recompute none -o p.json");
  const std::string plan =
      "stagecraft plan --network ./net.json --cluster local-cpu --global-batch 2 --micro-batch 2 --recompute none "
      "--json "
      "-o plan.json ";
  const json here = json::parse(expect_ok(plan).out);
  EXPECT_EQ(here["notes"][0].get<std::string>().substr(0, 27), "precision fp32, as device '") << here["notes"];
  EXPECT_EQ(json_of(folder_.path() / "plan.json")["precision"], "fp32");
  EXPECT_EQ(json_of(folder_.path() / "plan.json")["batch"]["sequence"], 32);
  EXPECT_EQ(json::parse(expect_ok(plan + "--profile p.json").out)["notes"],
            json::parse(R"(["precision fp32, as the profile was measured in it"])"));
  EXPECT_EQ(json_of(folder_.path() / "plan.json")["batch"]["sequence"], 16);
}

TEST_F(Loop, SaysWhatAProfileLacks) {
  expect_ok(
      "stagecraft profile --network ./net.json --sequence 32 --seconds 1 --micro-batch 2,4 --recompute none -o p.json");
  const std::string plan =
      "stagecraft plan --network ./net.json --cluster local-cpu --global-batch 8 --sequence 32 --precision fp32 "
      "--stages 1 --replicas 1 --profile p.json --json ";
  EXPECT_EQ(json::parse(expect_ok(plan + "--micro-batch 8").out)["notes"],
            json::parse(R"(["recomputation: none tried, as no others were measured",
                            "micro-batches of 8 were not measured: their costs are extrapolated from those of 2, 4"])"));
  EXPECT_EQ(json::parse(expect_ok(plan + "--micro-batch 4 --recompute none").out)["notes"], json::array());
  const Outcome refused = shell(plan + "--recompute selective", folder_.path());
  EXPECT_EQ(refused.exit, 2);
  EXPECT_NE(refused.err.find("with recompute selective"), std::string::npos) << refused.err;
}

TEST_F(Loop, GivesTheSameBytesForTheSameInput) {
  make_plan("--stages 2", "a.json");
  make_plan("--stages 2", "b.json");
  expect_ok("cmp a.json b.json");
  for (const char* engine : {"timeline", "simgrid"}) {
    expect_ok(std::string("stagecraft simulate a.json -o 1.json --engine ") + engine);
    expect_ok(std::string("stagecraft simulate a.json -o 2.json --engine ") + engine);
    expect_ok("cmp 1.json 2.json");
  }
}

TEST_F(Loop, TrainsTheSameWhateverThePlan) {
  make_plan("--stages 1 --micro-batch 2 --recompute none --devices 1", "whole.json");
  const std::string train = " --data text.txt --steps 5 --oversubscribe --json";
  const json whole = json::parse(expect_ok("stagecraft run whole.json" + train).out);
  for (const std::string layout : {"--schedule gpipe --recompute none", "--schedule 1f1b --recompute full",
                                   "--schedule 1f1b --recompute selective --cuts 1"}) {
    make_plan("--stages 2 --micro-batch 2 " + layout, "plan.json");
    const json split = json::parse(expect_ok("stagecraft run plan.json" + train).out);
    for (std::size_t i = 0; i < 5; ++i) {
      EXPECT_NEAR(split["losses"][i].get<double>(), whole["losses"][i].get<double>(), 1e-5) << layout;
    }
  }
}

TEST_F(Loop, ResumesAfterCtrlCAsIfNothingHadHappened) {
  make_plan("--stages 2 --micro-batch 2", "plan.json");
  const std::string train =
      "stagecraft run plan.json --data text.txt --oversubscribe --learning-rate-schedule constant ";
  const Outcome interrupted = shell(train + R"(--steps 1000000 --log-every 1 --checkpoint ckpt > log &
    pid=$!
    until grep -q "step  *3 " log; do sleep 0.1; done
    kill -INT $pid
    wait $pid)",
                                    folder_.path());
  EXPECT_EQ(interrupted.exit, 0) << interrupted.err;
  const std::string marker = "stopped after step ";
  const auto at = interrupted.err.find(marker);
  ASSERT_NE(at, std::string::npos) << interrupted.err;
  const int stopped = std::stoi(interrupted.err.substr(at + marker.size()));
  ASSERT_GE(stopped, 3);
  for (const auto& entry : fs::recursive_directory_iterator(folder_.path() / "ckpt")) {
    EXPECT_EQ(entry.path().extension(), ".safetensors") << "nothing half-written may be left";
  }
  // Two more steps from the checkpoint are the last two of a run that nothing interrupted.
  const std::string steps = "--json --steps " + std::to_string(stopped + 2);
  const json resumed = json::parse(expect_ok(train + steps + " --resume ckpt").out);
  const json whole = json::parse(expect_ok(train + steps).out);
  ASSERT_EQ(resumed["losses"].size(), 2U);
  EXPECT_EQ(resumed["losses"][1], whole["losses"].back()) << "bit for bit";
}

TEST_F(Loop, SaysWhichFilesAreOfAnotherNetworkOrPlan) {
  make_plan("--stages 2 --micro-batch 2", "plan.json");
  make_plan("--stages 2 --micro-batch 2 --recompute full", "other.json");
  expect_ok("sed 's/\"tiny\"/\"small\"/' net.json > small.json");
  expect_ok(
      "stagecraft plan --network ./small.json --cluster local-cpu --global-batch 8 --sequence 32 --precision fp32 "
      "--stages 2 -o small_plan.json");
  for (const char* plan : {"plan", "other", "small_plan"}) {
    expect_ok(std::string("stagecraft simulate ") + plan + ".json -o " + plan + ".trace.json");
  }
  EXPECT_EQ(expect_ok("stagecraft compare plan.json plan.trace.json").err, "");
  const Outcome other = expect_ok("stagecraft compare plan.json other.trace.json");
  EXPECT_EQ(other.err, "");
  EXPECT_NE(other.out.find("warning: not the same plan: plan.json has "), std::string::npos) << other.out;
  EXPECT_NE(other.out.find("; other.trace.json "), std::string::npos) << other.out;
  const Outcome network = expect_ok("stagecraft compare small_plan.trace.json plan.json plan.trace.json");
  EXPECT_EQ(network.err, "") << "once is enough";
  EXPECT_NE(network.out.find("warning: not the same network: plan.json has tiny; small_plan.trace.json small\n"),
            std::string::npos)
      << network.out;
  EXPECT_NE(network.out.find("closed form: plan.json, timeline: small_plan.trace.json, timeline #2: plan.trace.json\n"),
            std::string::npos)
      << network.out;
  EXPECT_EQ(expect_ok("stagecraft report plan.json small_plan.trace.json -o page.html").err,
            "warning: not the same network: plan.json is of network 'tiny', small_plan.trace.json of 'small'\n"
            "wrote page.html\n");
}

TEST_F(Loop, StopsWhereTheLossIsNoNumberAndSaysSo) {
  make_plan("--stages 2 --micro-batch 2", "plan.json");
  const std::string train =
      "stagecraft run plan.json --data text.txt --oversubscribe --steps 50 --learning-rate 1e6 --warmup-steps 0 ";
  const Outcome people = shell(train + "--log-every 1 --checkpoint ckpt -o trace.json", folder_.path());
  EXPECT_EQ(people.exit, 1);
  const json trace = json_of(folder_.path() / "trace.json");
  const auto last = std::to_string(trace["losses"].size());
  EXPECT_LT(trace["losses"].size(), 50U);
  EXPECT_TRUE(trace["losses"].back().is_null());
  EXPECT_EQ(trace["warnings"].back(), "the loss of step " + last + " is nan: training stopped there");
  EXPECT_NE(people.out.find("  loss nan  "), std::string::npos) << people.out;
  EXPECT_NE(people.err.find("error: the loss of step " + last + " is nan: "), std::string::npos) << people.err;
  EXPECT_NE(people.out.find("e+"), std::string::npos) << "no loss was huge";
  const std::size_t columns = people.out.find("tokens/s\n") - people.out.find("step     1");
  for (std::size_t at = people.out.find("step     "); at != std::string::npos;
       at = people.out.find("step     ", at + 1)) {
    EXPECT_EQ(people.out.find("tokens/s\n", at) - at, columns) << people.out;
  }
  EXPECT_FALSE(fs::exists(folder_.path() / "ckpt")) << "nothing worth keeping";
  expect_ok("stagecraft compare plan.json trace.json");

  for (const std::string& launcher : launchers()) {
    const Outcome scripts = shell(launcher + train + "--json", folder_.path());
    EXPECT_EQ(scripts.exit, 1) << scripts.err;
    const json summary = json::parse(scripts.out);
    EXPECT_TRUE(summary["losses"].back().is_null());
    EXPECT_EQ(summary["diverged"], (json{{"step", summary["last_step"]}, {"loss", "nan"}}));
  }
}

TEST_F(Loop, PricesAHandWrittenPlan) {
  make_plan("--stages 2 --micro-batch 2", "plan.json");
  json plan = json_of(folder_.path() / "plan.json");
  for (json& stage : plan["stages"]) stage.erase("cost");
  plan["schedule"] = "1f1b";
  plan.erase("prediction");
  plan.erase("digests");
  plan.erase("order");
  std::ofstream(folder_.path() / "hand.json") << plan;
  const Outcome outcome = expect_ok("stagecraft simulate hand.json --json");
  EXPECT_NE(outcome.err.find("priced by the roofline"), std::string::npos);
  EXPECT_GT(json::parse(outcome.out)["step_time_s"].get<double>(), 0);
}

}  // namespace
}  // namespace stagecraft
