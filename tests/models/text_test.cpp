#include "models/text.hpp"

#include <gtest/gtest.h>

namespace stagecraft {
namespace {

TEST(Text, FindsTheNearestName) {
  const std::vector<std::string> names{"gpipe", "1f1b", "interleaved"};
  EXPECT_EQ(nearest_name("gpip", names), "gpipe");
  EXPECT_EQ(nearest_name("1F1B", names), "1f1b");
  EXPECT_EQ(nearest_name("interleavd", names), "interleaved");
  EXPECT_EQ(nearest_name("zigzag", names), "");
  EXPECT_EQ(nearest_name(std::string(100'000, 'x'), names), "");
}

TEST(Text, SeparatesThousands) {
  EXPECT_EQ(with_thousands(0), "0");
  EXPECT_EQ(with_thousands(999), "999");
  EXPECT_EQ(with_thousands(1000), "1,000");
  EXPECT_EQ(with_thousands(-1234567), "-1,234,567");
}

TEST(Text, MakesForeignTextSafeToPrint) {
  EXPECT_EQ(printable("a\x1b[31m\n"), "a\\x1b[31m\\x0a");
  EXPECT_EQ(printable(std::string(100, 'x'), 5), "xxxxx...");
}

TEST(Text, AlignsNumbersRightAndWordsLeft) {
  const std::vector<std::vector<std::string>> rows{{"name", "count"}, {"a", "5"}, {"long", "1234567"}};
  EXPECT_EQ(format_table(rows),
            "name    count\n"
            "a           5\n"
            "long  1234567\n");
}

TEST(Text, CountsInTheSingularToo) {
  EXPECT_EQ(counted(0, "stage"), "0 stages");
  EXPECT_EQ(counted(1, "stage"), "1 stage");
  EXPECT_EQ(counted(2, "stage"), "2 stages");
}

}  // namespace
}  // namespace stagecraft
