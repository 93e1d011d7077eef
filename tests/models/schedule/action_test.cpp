#include <gtest/gtest.h>

#include "models/schedule/schedule.hpp"

namespace stagecraft {
namespace {

TEST(ActionText, PrintAndParseAreInverse) {
  for (const char* text : {"2F0", "0B17", "3I1", "3W1", "1SEND_F3", "2RECV_F3", "2SEND_B3", "1RECV_B3", "0UNSHARD",
                           "12RESHARD", "0REDUCE_TIED", "3REDUCE_GRAD", "0STEP", "2147483647F2147483647"}) {
    const auto action = parse_action(text);
    ASSERT_TRUE(action) << text;
    EXPECT_EQ(to_string(*action), text);
  }
  EXPECT_EQ(parse_action("2SEND_B31"), (Action{ActionKind::send_backward, StageId{2}, MicrobatchId{31}}));
  EXPECT_EQ(parse_action("2STEP"), (Action{ActionKind::optimizer_step, StageId{2}, MicrobatchId{-1}}));
}

TEST(ActionText, RefusesWhatIsNoAction) {
  for (const char* text : {"", "F0", "2F", "2", "2F0x", "2F0 ", " 2F0", "2f0", "-2F0", "2F-1", "2F+1", "02F0", "2F00",
                           "2X0", "0REDUCE_GRAD1", "2147483648F0", "2F99999999999", "2SENDF0", "2F0,2F1"}) {
    EXPECT_FALSE(parse_action(text)) << text;
  }
}

TEST(ActionText, NamesTheUpdateOfAnAsynchronousStep) {
  const Action step{ActionKind::optimizer_step, StageId{2}, MicrobatchId{7}};
  EXPECT_EQ(to_string(step), "2STEP7");
  EXPECT_EQ(parse_action("2STEP7"), step);
  EXPECT_EQ(parse_action("2STEP")->microbatch, MicrobatchId{-1});
  EXPECT_FALSE(parse_action("2STEPx").has_value());
}

}  // namespace
}  // namespace stagecraft
