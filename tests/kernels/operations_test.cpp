// Every operation through the harness: an operation is one test, its entry points and shapes are the cases inside.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "kernels/harness/cases.hpp"

namespace stagecraft::kernels {
namespace {

template <typename Cases>
std::vector<std::string> operations(const Cases& cases) {
  std::set<std::string> names;
  for (const auto& test : cases) names.insert(test.op);
  return {names.begin(), names.end()};
}

const auto name_of = [](const testing::TestParamInfo<std::string>& info) { return info.param; };

class Operation : public testing::TestWithParam<std::string> {};

TEST_P(Operation, ComputesWhatTheReferenceComputes) {
  for (const Case& test : test_cases()) {
    if (test.op != GetParam()) continue;
    for (const std::uint64_t seed : {1U, 2U, 3U}) {
      const Outcome outcome = check(test, seed);
      EXPECT_TRUE(outcome.passed) << test.name << ", seed " << seed << ": " << outcome.message;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, Operation, testing::ValuesIn(operations(test_cases())), name_of);

class Gradient : public testing::TestWithParam<std::string> {};

TEST_P(Gradient, EqualsFiniteDifferences) {
  for (const GradientCase& test : gradient_cases()) {
    if (test.op != GetParam()) continue;
    for (const std::uint64_t seed : {1U, 2U, 3U}) {
      const Outcome outcome = check_gradient(test, seed);
      EXPECT_TRUE(outcome.passed) << test.name << ", seed " << seed << ": " << outcome.message;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cpu, Gradient, testing::ValuesIn(operations(gradient_cases())), name_of);

TEST(PerformanceCases, CoverTheOperationsThatAreTested) {
  EXPECT_THAT(operations(perf_cases()), testing::ElementsAreArray(operations(test_cases())));
}

}  // namespace
}  // namespace stagecraft::kernels
