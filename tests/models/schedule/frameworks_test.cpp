#include "models/schedule/frameworks.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "models/error.hpp"
#include "tests/models/schedule/schedules.hpp"

namespace stagecraft {
namespace {

std::string joined(const std::vector<std::string>& words) { return fmt::format("{}", fmt::join(words, " ")); }

TEST(Megatron, HasPlainAndInterleavedOneFOneB) {
  EXPECT_EQ(joined(megatron_arguments("1f1b", {4, 1, 8})),
            "--pipeline-model-parallel-size 4 --micro-batch-size 1 --global-batch-size 8");
  EXPECT_EQ(joined(megatron_arguments("interleaved-1f1b", {4, 2, 10, 5})),
            "--pipeline-model-parallel-size 4 --num-virtual-stages-per-pipeline-rank 2 "
            "--microbatch-group-size-per-virtual-pipeline-stage 5 --micro-batch-size 1 --global-batch-size 10");
  // torch's order is Megatron-LM's with another group, where there is one.
  EXPECT_EQ(megatron_arguments("interleaved-1f1b-torch", {4, 2, 10}),
            megatron_arguments("interleaved-1f1b", {4, 2, 10, 5}));
  EXPECT_TRUE(megatron_arguments("interleaved-1f1b-torch", {4, 2, 3}).empty());
  EXPECT_TRUE(megatron_arguments("interleaved-1f1b-torch", {4, 1, 8}).empty());
  EXPECT_TRUE(megatron_arguments("gpipe", {4, 1, 8}).empty());
  EXPECT_TRUE(megatron_arguments("pipedream", {4, 1, 8}).empty());
}

TEST(DeepSpeed, TrainsAsWrittenByHand) {
  const auto ranks = deepspeed_instructions("1f1b", {2, 1, 2});
  EXPECT_EQ(joined(ranks[0]),
            "LoadMicroBatch(buffer_id=0) ForwardPass(buffer_id=0) SendActivation(buffer_id=0) "
            "LoadMicroBatch(buffer_id=1) ForwardPass(buffer_id=1) SendActivation(buffer_id=1) "
            "RecvGrad(buffer_id=0) BackwardPass(buffer_id=0) RecvGrad(buffer_id=1) BackwardPass(buffer_id=1) "
            "ReduceTiedGrads() ReduceGrads() OptimizerStep()");
  EXPECT_EQ(joined(ranks[1]),
            "RecvActivation(buffer_id=0) LoadMicroBatch(buffer_id=0) ForwardPass(buffer_id=0) "
            "BackwardPass(buffer_id=0) RecvActivation(buffer_id=1) SendGrad(buffer_id=0) LoadMicroBatch(buffer_id=1) "
            "ForwardPass(buffer_id=1) BackwardPass(buffer_id=1) SendGrad(buffer_id=1) "
            "ReduceTiedGrads() ReduceGrads() OptimizerStep()");
}

TEST(DeepSpeed, RunsTheOrderOfTheSameSchedule) {
  for (const char* name : {"1f1b", "inference"}) {
    for (int p = 1; p <= 7; ++p) {
      for (int m = 1; m <= 12; ++m) {
        const ComputeSchedule schedule = make_schedule(name, {p, 1, m});
        const auto ranks = deepspeed_instructions(name, {p, 1, m});
        ASSERT_EQ(ranks.size(), static_cast<std::size_t>(p));
        for (std::size_t r = 0; r < ranks.size(); ++r) {
          std::string passes, expected;
          for (const std::string& instruction : ranks[r]) {
            if (instruction.starts_with("ForwardPass")) passes += 'F';
            if (instruction.starts_with("BackwardPass")) passes += 'B';
          }
          for (const Action& action : schedule.ranks[r]) expected += letters(action.kind);
          EXPECT_EQ(passes, expected) << name << " P=" << p << " M=" << m << " rank " << r;
        }
      }
    }
  }
}

// The engine's exchanges block: a rank goes on only when its neighbour has come to the other half.
TEST(DeepSpeed, NeverDeadlocksOnBlockingExchanges) {
  const std::map<std::string, std::pair<int, std::string>> halves{{"SendActivation", {1, "RecvActivation"}},
                                                                  {"RecvActivation", {-1, "SendActivation"}},
                                                                  {"SendGrad", {-1, "RecvGrad"}},
                                                                  {"RecvGrad", {1, "SendGrad"}}};
  for (const char* name : {"1f1b", "inference"}) {
    for (int p = 1; p <= 7; ++p) {
      for (int m = 1; m <= 12; ++m) {
        const auto ranks = deepspeed_instructions(name, {p, 1, m});
        std::vector<std::size_t> at(ranks.size());
        const auto next = [&](std::size_t r) {
          return at[r] < ranks[r].size() ? ranks[r][at[r]].substr(0, ranks[r][at[r]].find('(')) : std::string();
        };
        for (bool progress = true; progress;) {
          progress = false;
          for (std::size_t r = 0; r < ranks.size(); ++r) {
            while (!next(r).empty()) {
              const auto half = halves.find(next(r));
              if (half != halves.end()) {
                const std::size_t other = r + static_cast<std::size_t>(half->second.first);
                ASSERT_LT(other, ranks.size());
                if (next(other) != half->second.second) break;
                ++at[other];
              }
              ++at[r];
              progress = true;
            }
          }
        }
        for (std::size_t r = 0; r < ranks.size(); ++r) {
          EXPECT_EQ(at[r], ranks[r].size()) << name << " P=" << p << " M=" << m << " rank " << r << " at " << next(r);
        }
      }
    }
  }
}

TEST(DeepSpeed, HasNoOtherSchedule) {
  EXPECT_TRUE(deepspeed_instructions("gpipe", {2, 1, 4}).empty());
  EXPECT_TRUE(deepspeed_instructions("inference", {2, 2, 4}).empty());
}

}  // namespace
}  // namespace stagecraft
