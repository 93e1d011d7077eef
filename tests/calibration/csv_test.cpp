#include "calibration/csv.hpp"

#include <gmock/gmock.h>

#include "models/error.hpp"

namespace stagecraft {
namespace {

std::vector<std::vector<std::string>> cells(std::string_view text) {
  std::vector<std::vector<std::string>> rows;
  const CsvTable table(text, "t.csv");
  for (const CsvRow& row : table.rows()) rows.push_back(row.fields);
  return rows;
}

std::string refusal(std::string_view text) {
  try {
    CsvTable(text, "t.csv");
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

using testing::ElementsAre;

TEST(CsvTable, ReadsQuotesCommasAndLineBreaksInsideThem) {
  EXPECT_THAT(cells("a,b\n1,\"x, \"\"y\"\"\n z\"\n"), ElementsAre(ElementsAre("1", "x, \"y\"\n z")));
}

TEST(CsvTable, TakesEveryLineEndAByteOrderMarkAndEmptyLines) {
  const auto expected = ElementsAre(ElementsAre("1", ""), ElementsAre("", "4"));
  EXPECT_THAT(cells("a,b\n1,\n,4"), expected);
  EXPECT_THAT(cells("\xEF\xBB\xBF"
                    "a,b\r\n1,\r\n\r\n,4\r\n"),
              expected);
}

TEST(CsvTable, FindsCellsByColumnAndTellsLines) {
  const CsvTable table("a,b\n\"1\n1\",2\n3,4\n", "t.csv");
  EXPECT_EQ(table.at(table.rows()[1], "b"), "4");
  EXPECT_EQ(table.at(table.rows()[1], "c"), "");
  EXPECT_EQ(table.find("c"), std::nullopt);
  EXPECT_EQ(table.rows()[0].line, 2u);
  EXPECT_EQ(table.rows()[1].line, 4u);
}

TEST(CsvTable, NamesTheLineOfEachFault) {
  EXPECT_EQ(refusal(""), "t.csv: expected a line with the names of the columns, got an empty file");
  EXPECT_EQ(refusal("a,a\n"), "t.csv: line 1: column 'a' stands there twice");
  EXPECT_EQ(refusal("a,\n"), "t.csv: line 1: a column without a name");
  EXPECT_EQ(refusal("a,b\n1,2\n3\n"), "t.csv: line 3: expected 2 fields, as many as the heading has, got 1");
  EXPECT_EQ(refusal("a\n\"1\n\n"), "t.csv: line 2: the quote is never closed");
  EXPECT_EQ(refusal("a\n\"1\"2\n"), "t.csv: line 2: expected a comma behind the closing quote");
  EXPECT_EQ(refusal(std::string_view("a\n\0\n", 4)), "t.csv: line 2: a NUL byte, so no text");
}

}  // namespace
}  // namespace stagecraft
