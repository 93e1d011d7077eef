#include "calibration/replay.hpp"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "calibration/score_text.hpp"
#include "tests/calibration/rows.hpp"

namespace stagecraft {
namespace {

TEST(ErrorScore, SumsUpSignedErrors) {
  const ErrorScore s = score(std::vector<double>{10, -20, 0, 2});
  EXPECT_EQ(s.rows, 4);
  EXPECT_DOUBLE_EQ(s.mape_pct, 8);
  EXPECT_DOUBLE_EQ(s.median_pct, 6);
  EXPECT_DOUBLE_EQ(s.worst_pct, -20);
  EXPECT_DOUBLE_EQ(s.bias_pct, -2);
}

TEST(RankCorrelation, IsOneForTheSameOrderAndMinusOneForTheReverse) {
  const std::vector<double> up = {1, 2, 30}, down = {3, 2, 1}, tied = {1, 1, 2};
  EXPECT_DOUBLE_EQ(rank_correlation(up, up), 1);
  EXPECT_DOUBLE_EQ(rank_correlation(up, down), -1);
  EXPECT_NEAR(rank_correlation(up, tied), std::sqrt(3) / 2, 1e-12);
}

// Four layouts of one network, "measured" as the model predicts them but for a factor.
std::vector<std::map<std::string, std::string>> four_rows(double factor) {
  std::vector<std::map<std::string, std::string>> rows;
  for (const auto& [tp, pp] : {std::pair("1", "1"), std::pair("2", "1"), std::pair("1", "2"), std::pair("2", "2")}) {
    auto row = complete_row();
    row["id"] = fmt::format("t{}p{}", tp, pp);
    row["tp"] = tp;
    row["pp"] = pp;
    row["dp"] = fmt::format("{}", 8 / (tp[0] - '0') / (pp[0] - '0'));
    const Measurement m = read_rows({row}).measurements.at(0);
    const StepModel model(m.job, m.machine);
    row["iter_time_s"] = fmt::format("{:.9g}", factor * model.estimate(m.layout).time.value());
    rows.push_back(row);
  }
  return rows;
}

TEST(Replay, FindsNoErrorInItsOwnPredictions) {
  const MeasurementTable table = read_rows(four_rows(1));
  const SourceScore s = replay(table);
  EXPECT_EQ(s.time.rows, 4);
  EXPECT_NEAR(s.time.mape_pct, 0, 1e-6);
  EXPECT_GT(s.baseline.mape_pct, 1);
  ASSERT_TRUE(s.plans);
  EXPECT_EQ(s.plans->groups, 1);
  EXPECT_EQ(s.plans->worst_regret_pct, 0);
  EXPECT_DOUBLE_EQ(s.plans->rank_correlation, 1);
}

TEST(Replay, FitsTheBaselineToTheRowsThatAreScored) {
  std::vector<std::map<std::string, std::string>> rows(5, complete_row());
  for (std::size_t i = 2; i < rows.size(); ++i) rows[i]["iter_time_s"] = "4000";  // far below 5 % of the peak
  const CsvTable table(csv_of(rows), "nanotron.csv");
  const MeasurementTable measured = read_measurements(table, load_calibration());
  const SourceScore s = replay(measured);
  EXPECT_EQ(s.baseline.rows, 2);
  EXPECT_NEAR(s.baseline.mape_pct, 0, 1e-9) << "two equal rows";
}

TEST(Replay, SumsUpTheErrorsOnADevice) {
  const MeasurementTable exact = read_rows(four_rows(1)), late = read_rows(four_rows(1.25));
  const std::vector<SourceScore> scores{replay(exact), replay(late)};
  const std::string device = exact.measurements.front().device;
  const PublishedErrors errors = published_errors(scores, device);
  EXPECT_EQ(errors.step_time.rows, 8);
  EXPECT_EQ(errors.step_time.median, 10) << "four of eight are exact";
  EXPECT_EQ(errors.step_time.nine_in_ten, 20);
  EXPECT_EQ(errors.memory, PublishedErrors::Of{}) << "none was measured";
  EXPECT_EQ(published_errors(scores, "abacus"), PublishedErrors{});
}

TEST(Replay, SeesAConstantFactorAsBiasNotAsRegret) {
  const MeasurementTable table = read_rows(four_rows(1.25));
  const SourceScore s = replay(table);
  EXPECT_NEAR(s.time.mape_pct, 20, 1e-6);
  EXPECT_NEAR(s.time.bias_pct, -20, 1e-6);
  EXPECT_EQ(s.plans->worst_regret_pct, 0);
}

TEST(Replay, CountsTheRegretOfAWrongChoice) {
  auto rows = four_rows(1);
  // What is predicted to be the fastest was twice as slow as the slowest.
  double fastest = 1e9, slowest = 0;
  std::size_t best = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const double time = std::stod(rows[i]["iter_time_s"]);
    if (time < fastest) fastest = time, best = i;
    slowest = std::max(slowest, time);
  }
  rows[best]["iter_time_s"] = fmt::format("{:.9g}", 2 * slowest);
  double second = 1e9;
  for (auto& row : rows) second = std::min(second, std::stod(row["iter_time_s"]));
  const MeasurementTable table = read_rows(rows);
  const SourceScore s = replay(table);
  EXPECT_NEAR(s.plans->worst_regret_pct, 100 * (2 * slowest / second - 1), 1e-4);
  ASSERT_EQ(s.plans->by_group.size(), 1u);
  const PlanGroup& group = s.plans->by_group.front();
  EXPECT_EQ(std::tie(group.model, group.rows, group.devices, group.batch, group.sequence),
            std::make_tuple("GPT", 4, 8, 64, 2048));
  EXPECT_EQ(group.regret_pct, s.plans->worst_regret_pct);
  EXPECT_EQ(to_json({&s, 1})["sources"][0]["plans"]["by_group"][0]["regret_pct"], group.regret_pct);
}

TEST(Replay, HasNoChoiceAmongRowsOfOneLayoutOrOfSeveralDevices) {
  auto rows = four_rows(1);
  EXPECT_TRUE(replay(read_rows(rows)).plans.has_value());
  auto other = rows;
  for (auto& row : other) {
    const std::string time = row["iter_time_s"];
    row = rows.front();
    row["iter_time_s"] = time;
  }
  EXPECT_FALSE(replay(read_rows(other)).plans.has_value());
  rows.front()["gpu"] = "H100-SXM5-80GB";
  EXPECT_FALSE(replay(read_rows(rows)).plans.has_value()) << "three are left of the A100";
}

TEST(Replay, IsTakenApartByModelDevicesPrecisionAndGroup) {
  const MeasurementTable table = read_rows(four_rows(1.25));
  const SourceScore s = replay(table);
  const std::string text = details_text({&s, 1});
  EXPECT_THAT(text, testing::HasSubstr("rows                    GPT       4  20.0    20.0  -20.0  -20.0"));
  EXPECT_THAT(text, testing::HasSubstr("devices"));
  EXPECT_THAT(text, testing::HasSubstr("fp16"));
  EXPECT_THAT(text, testing::HasSubstr("rows            GPT          8    2048     64     4       0.0  1.000"));
}

TEST(Replay, ComparesOutOfMemoryLabels) {
  auto fits = complete_row(), does_not = complete_row(), wrong = complete_row();
  does_not["status"] = "oom";
  does_not["micro_batch"] = "32";
  does_not["recompute"] = "none";
  wrong["status"] = "oom";
  for (auto* row : {&does_not, &wrong}) (*row)["iter_time_s"] = "";
  const MeasurementTable table = read_rows({fits, does_not, wrong});
  const SourceScore s = replay(table);
  ASSERT_TRUE(s.fits);
  EXPECT_EQ(s.fits->rows, 3);
  EXPECT_EQ(s.fits->right, 2);
  EXPECT_EQ(s.fits->missed, 1);
  EXPECT_EQ(s.fits->false_alarms, 0);
}

TEST(Replay, WritesALinePerRowAndTheReasonsOfSkippedOnes) {
  auto rows = four_rows(1);
  rows.push_back(complete_row());
  rows.back()["vpp"] = "";
  const MeasurementTable table = read_rows(rows);
  const SourceScore s = replay(table);
  const Json json = to_json({&s, 1})["sources"][0];
  EXPECT_EQ(json["source"], "rows");
  EXPECT_EQ(json["rows"], 4);
  EXPECT_EQ(json["skipped"][0]["reason"], "vpp is not published");
  for (const char* field : {"mape_pct", "median_pct", "worst_pct", "bias_pct"})
    EXPECT_NEAR(json[field], 0, 1e-6) << field;
  ASSERT_EQ(json["predictions"].size(), 4u);
  EXPECT_EQ(json["predictions"][1]["layout"], "t2 d4 b4 m4 1f1b full");
  EXPECT_THAT(to_text({&s, 1}), testing::HasSubstr("vpp is not published"));
}

}  // namespace
}  // namespace stagecraft
