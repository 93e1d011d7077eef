// Published measurements as a user replays them: the table, the JSON, the picture, the thresholds.

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/process.hpp"

namespace stagecraft {
namespace {

const std::string korthikanti = std::string(PROJECT_FOLDER) + "/validation/korthikanti_2022_iteration_time.csv";

class Validate : public testing::Test {
 protected:
  Outcome run(const std::string& arguments) { return shell("stagecraft " + arguments, folder_.path()); }
  std::string text_of(const std::string& file) {
    std::stringstream text;
    text << std::ifstream(folder_.path() / file).rdbuf();
    return text.str();
  }

  TemporaryFolder folder_;
};

TEST_F(Validate, PrintsATablePerSource) {
  const Outcome outcome = run("validate " + korthikanti);
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("korthikanti_2022_iteration_time     5        0"), std::string::npos) << outcome.out;
}

TEST_F(Validate, WritesALinePerRowAsJson) {
  const Outcome outcome = run("validate --json " + korthikanti);
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  const nlohmann::json source = nlohmann::json::parse(outcome.out)["sources"][0];
  EXPECT_EQ(source["rows"], 5);
  EXPECT_TRUE(source["skipped"].empty());
  for (const char* field : {"mape_pct", "median_pct", "worst_pct", "bias_pct"}) EXPECT_TRUE(source[field].is_number());
  ASSERT_EQ(source["predictions"].size(), 5u);
  for (const auto& row : source["predictions"]) {
    const double error = row["predicted_s"].get<double>() / row["measured_s"].get<double>() - 1;
    EXPECT_NEAR(row["error_pct"].get<double>(), 100 * error, 1e-6);
  }
}

TEST_F(Validate, ComparesKernelsAndCollectives) {
  const std::string folder = std::string(PROJECT_FOLDER) + "/validation/";
  const Outcome outcome =
      run("validate --json " + folder + "collectives_nccl.csv " + folder + "kernel_efficiency_simumax.csv");
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  std::map<std::string, nlohmann::json> by_name;
  const nlohmann::json result = nlohmann::json::parse(outcome.out);
  for (const auto& each : result["microbenchmarks"]) by_name[each["what"]] = each;
  EXPECT_GT(by_name.at("A100-SXM4-80GB all-reduce")["rows"], 100);
  EXPECT_LT(by_name.at("A100-SXM4-80GB all-reduce")["mape_pct"], 6);
  EXPECT_LT(by_name.at("A100-PCIe-80GB products")["mape_pct"], 6);
  EXPECT_NE(run("validate " + folder + "collectives_nccl.csv").out.find("all-reduce, infiniband"), std::string::npos);
}

TEST_F(Validate, ExitsWithOnePastAThreshold) {
  EXPECT_EQ(run("validate --threshold 8 " + korthikanti).exit, 0);
  const Outcome above = run("validate --threshold korthikanti=0.01 " + korthikanti);
  EXPECT_EQ(above.exit, 1);
  EXPECT_NE(above.err.find("korthikanti_2022_iteration_time: predicted step times are off by "), std::string::npos) << above.err;
  EXPECT_EQ(run("validate --threshold memory:8 " + korthikanti).exit, 0) << "has none";
  EXPECT_EQ(run("validate --threshold memories:8 " + korthikanti).exit, 2);
  EXPECT_EQ(run("validate --threshold other=8 " + korthikanti).exit, 2);
  EXPECT_EQ(run("validate --threshold few " + korthikanti).exit, 2);
}

TEST_F(Validate, DrawsPredictedAgainstMeasured) {
  ASSERT_EQ(run("validate --plot plot.svg " + korthikanti).exit, 0);
  const std::string picture = text_of("plot.svg");
  std::size_t dots = 0;
  for (auto at = picture.find("<circle"); at != std::string::npos; at = picture.find("<circle", at + 1)) ++dots;
  EXPECT_EQ(dots, 5u);
}

TEST_F(Validate, NamesWhatIsWrongWithAFile) {
  std::ofstream(folder_.path() / "rows.csv") << "id,layers\n1,2\n";
  const Outcome columns = run("validate rows.csv");
  EXPECT_EQ(columns.exit, 2);
  EXPECT_NE(columns.err.find("rows.csv: the columns hidden, heads"), std::string::npos) << columns.err;
  std::ofstream(folder_.path() / "broken.csv") << "id,layers\n\"1,2\n";
  EXPECT_NE(run("validate broken.csv").err.find("broken.csv: line 2: the quote is never closed"), std::string::npos);
  EXPECT_EQ(run("validate .").exit, 2);
  EXPECT_EQ(run("validate missing.csv").exit, 2);
}

TEST_F(Validate, UsesTheConstantsThatCalibrateWrote) {
  const std::string presets = "p=$(dirname $(command -v stagecraft))/../share/stagecraft/presets; ";
  const Outcome fitted = shell(presets + "cp -r $p fitted && chmod -R u+w fitted && stagecraft calibrate " +
                                   korthikanti + " --device A100-SXM4-80GB -o fitted",
                               folder_.path());
  ASSERT_EQ(fitted.exit, 0) << fitted.err;
  const Outcome table = shell("STAGECRAFT_PRESETS=fitted stagecraft validate " + korthikanti, folder_.path());
  // The table that calibrate printed is the one that validate prints with its files.
  EXPECT_EQ(table.out, fitted.out);
  EXPECT_EQ(run("calibrate --device A100-SXM " + korthikanti).exit, 2);
}

// What `plan` says of itself is what `validate` finds.
TEST_F(Validate, PresetsSayHowFarOffTheyAre) {
  ASSERT_EQ(run("calibrate --keep " PROJECT_FOLDER "/validation -o kept").exit, 0);
  const auto text = [](const std::filesystem::path& path) {
    std::ifstream in(path);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(PROJECT_FOLDER "/models/presets/devices")) {
    EXPECT_EQ(text(folder_.path() / "kept/devices" / entry.path().filename()), text(entry.path()))
        << "calibrate validation --keep -o models/presets";
    ++files;
  }
  EXPECT_GT(files, 5);
}

}  // namespace
}  // namespace stagecraft
