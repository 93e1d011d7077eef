#include "models/text.hpp"

#include <gtest/gtest.h>

#include <cmath>

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

TEST(Text, CountsInTheSingularAndInThePlural) {
  EXPECT_EQ(counted(1, "stage"), "1 stage");
  EXPECT_EQ(counted(0, "replica"), "0 replicas");
  EXPECT_EQ(counted(1, "micro-batch"), "1 micro-batch");
  EXPECT_EQ(counted(1000, "micro-batch"), "1,000 micro-batches");
  EXPECT_EQ(counted(2, "process"), "2 processes");
}

TEST(Text, RoundsToTheNearestWholeNumber) {
  EXPECT_EQ(rounded_with_thousands(26481.5), "26,482");
  EXPECT_EQ(rounded_with_thousands(26481.4), "26,481");
}

TEST(Text, KeepsLossesShort) {
  EXPECT_EQ(loss_text(5.61284), "5.6128");
  EXPECT_EQ(loss_text(999.99), "999.9900");
  EXPECT_EQ(loss_text(999.99999), "1.00e+03");
  EXPECT_EQ(loss_text(3.4e38), "3.40e+38");
  EXPECT_EQ(loss_text(std::nan("")), "nan");
}

}  // namespace
}  // namespace stagecraft
