// Schedules as a user looks at them: shown in every format, read back, and compared.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/process.hpp"

namespace stagecraft {
namespace {

using nlohmann::json;

class Schedules : public testing::Test {
 protected:
  std::string out_of(const std::string& command) {
    const Outcome outcome = shell("stagecraft " + command, folder_.path());
    EXPECT_EQ(outcome.exit, 0) << command << "\n" << outcome.err;
    return outcome.out;
  }

  TemporaryFolder folder_;
};

TEST_F(Schedules, AreShownAsAGridInProportionToTime) {
  EXPECT_EQ(out_of("show schedule 1f1b -p 2 -m 2"),
            "1f1b: 2 stages on 2 ranks, 2 micro-batches\n"
            "with F 1, B 2: 9 units, bubble 33.3 % (idle/total), 33.3 % (zero-bubble span)\n"
            "in flight, by rank: 2 1\n"
            "\n"
            "rank 0 | F0 F1 .  .  B0 -- .  B1 --\n"
            "rank 1 | .  F0 B0 -- F1 B1 -- .  .\n");
}

TEST_F(Schedules, TakeTheFewestStagesARankUnlessToldOtherwise) {
  EXPECT_NE(out_of("show schedule zb-v -p 2 -m 4").find("zb-v: 4 stages on 2 ranks"), std::string::npos);
  EXPECT_NE(out_of("show schedule interleaved-1f1b -p 2 -m 4").find("4 stages on 2 ranks"), std::string::npos);
  EXPECT_NE(out_of("show schedule looped-bfs -p 2 -m 4").find("2 stages on 2 ranks"), std::string::npos);
  EXPECT_EQ(out_of("show schedule looped-bfs --ranks 2 --stages-per-rank 3 --microbatches 4"),
            out_of("show schedule looped-bfs -p 2 -v 3 -m 4"));
}

TEST_F(Schedules, AreColouredOnATerminalOnly) {
  const std::string show = "stagecraft show schedule zb-h1 -p 2 -m 2";
  EXPECT_EQ(shell(show, folder_.path()).out.find('\x1b'), std::string::npos);
  const std::string on_terminal = "script -qec '" + show + "' /dev/null < /dev/null";
  EXPECT_NE(shell(on_terminal, folder_.path()).out.find("\x1b[30;48;5;110mF0\x1b[0m"), std::string::npos);
  EXPECT_EQ(shell("NO_COLOR=1 " + on_terminal, folder_.path()).out.find("48;5"), std::string::npos);
}

TEST_F(Schedules, GoToTorchAndBack) {
  for (const std::string extra : {"", " --communication"}) {
    for (const std::string name : {"1f1b", "interleaved-1f1b", "zb-v", "looped-bfs"}) {
      std::ofstream(folder_.path() / "schedule.csv")
          << out_of(fmt::format("show schedule {} -p 4 -m 8 --format torch-csv{}", name, extra));
      const json written = json::parse(out_of("show schedule " + name + " -p 4 -m 8 --json"));
      const json read = json::parse(out_of("show schedule schedule.csv --json"));
      EXPECT_EQ(read["name"], "custom");
      EXPECT_EQ(read["ranks"], written["ranks"]) << name;
      EXPECT_EQ(read["makespan"], written["makespan"]) << name;
    }
  }
}

TEST_F(Schedules, NameWhatRunsThemElsewhere) {
  const json interleaved =
      json::parse(out_of("show schedule interleaved-1f1b -p 4 -v 2 -m 10 --group 5 --format json"));
  EXPECT_EQ(interleaved["megatron"],
            json({"--pipeline-model-parallel-size", "4", "--num-virtual-stages-per-pipeline-rank", "2",
                  "--microbatch-group-size-per-virtual-pipeline-stage", "5", "--micro-batch-size", "1",
                  "--global-batch-size", "10"}));
  EXPECT_FALSE(interleaved.contains("deepspeed"));
  const json plain = json::parse(out_of("show schedule 1f1b -p 2 -m 2 --format json"));
  EXPECT_EQ(plain["deepspeed"][1][0], "RecvActivation(buffer_id=0)");
  EXPECT_FALSE(json::parse(out_of("show schedule zb-h1 --json")).contains("megatron"));
}

TEST_F(Schedules, AreDrawnWithTheTimesGiven) {
  const std::string svg = out_of("show schedule zb-h1 -p 2 -m 2 --tf 2 --ti 2 --tw 1 --c 0.5 --format svg");
  EXPECT_EQ(svg.rfind("<svg", 0), 0U);
  EXPECT_NE(svg.find("zb-h1: 2 stages, 2 micro-batches; F 2, I 2, W 1, messages 0.5"), std::string::npos);
  EXPECT_NE(svg.find("1F0: forward, starts 2.5, lasts 2"), std::string::npos);
}

TEST_F(Schedules, AreRankedByMakespanWithReasonsForTheOthers) {
  const json compared = json::parse(out_of("compare schedules -p 4 -v 2 -m 8 --tf 2 --ti 2 --tw 1 --c 0 --json"));
  double before = 0;
  bool found = false;
  for (const json& row : compared["schedules"]) {
    if (!row["synchronous_training"].get<bool>()) break;
    EXPECT_GE(row["makespan"].get<double>(), before);
    before = row["makespan"].get<double>();
    if (row["name"] != "interleaved-1f1b") continue;
    found = true;
    EXPECT_EQ(row["makespan"], (8 * 2 + 4 - 1) * 5);
    EXPECT_EQ(row["messages"], 2 * 7 * 8);
    EXPECT_EQ(row["peak_stash"], 2 * 3 + 4 + 1);
  }
  EXPECT_TRUE(found);
  EXPECT_EQ(compared["refused"][0], json({{"name", "gpipe"}, {"reason", "needs one stage a rank, got 2"}}));
  const std::string text = out_of("compare schedules -p 4 -v 2 -m 8");
  EXPECT_NE(text.find("4 ranks with 2 stages each, 8 micro-batches"), std::string::npos);
  EXPECT_NE(text.find("\n  1f1b: needs one stage a rank, got 2\n"), std::string::npos);
}

}  // namespace
}  // namespace stagecraft
