#include "models/json_reader.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace stagecraft {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

template <class Body>
std::string input_complaint(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    return error.what();
  }
  return "no complaint";
}

// Reads {"x": <text>} with `read`, which gets the value of x.
template <class Read>
std::string complaint_about(const std::string& text, Read&& read) {
  const Json json = parse_json("{\"x\": " + text + "}", "f.json");
  return input_complaint([&] { read(JsonValue(json, "f.json").object().required("x")); });
}

TEST(JsonReader, NamesFileFieldValueAndExpectation) {
  const Json json = parse_json(R"({"nodes": [{"link": {"bandwidth": "fast"}}]})", "c.json");
  EXPECT_EQ(input_complaint([&] {
              JsonValue(json, "c.json")
                  .object()
                  .required("nodes")
                  .array()[0]
                  .object()
                  .required("link")
                  .object()
                  .required("bandwidth")
                  .bytes_per_second();
            }),
            "c.json: nodes[0].link.bandwidth: expected a rate such as \"900 GB/s\", got \"fast\"");
}

TEST(JsonReader, TakesWholeNumbersHoweverTheyAreWritten) {
  const Json json = parse_json(R"([4, 4.0, 4e0])", "f.json");
  for (const JsonValue& value : JsonValue(json, "f.json").array()) EXPECT_EQ(value.integer(0, 10), 4);
}

TEST(JsonReader, RefusesNumbersOutOfRangeOrOfTheWrongKind) {
  const auto integer = [](const JsonValue& value) { value.integer(1, 10); };
  for (const char* text :
       {"0", "11", "2.5", "1e300", "18446744073709551615", "-9223372036854775808", "\"4\"", "true"}) {
    EXPECT_THAT(complaint_about(text, integer), StartsWith("f.json: x: expected a whole number from 1 to 10, got "))
        << text;
  }
  const auto number = [](const JsonValue& value) { value.number(0, 1); };
  EXPECT_EQ(complaint_about("1.5", number), "f.json: x: expected a number from 0 to 1, got 1.5");
  const auto bytes = [](const JsonValue& value) { value.bytes(); };
  EXPECT_EQ(complaint_about("80", bytes), "f.json: x: expected a size such as \"80 GiB\", got 80");
  EXPECT_EQ(complaint_about("\"-1 GiB\"", bytes), "f.json: x: expected a size such as \"80 GiB\", got \"-1 GiB\"");
}

TEST(JsonReader, RefusesUnknownFieldsWithTheNearestKnownName) {
  const Json json = parse_json(R"({"bandwith": 1})", "f.json");
  JsonObject object = JsonValue(json, "f.json").object();
  object.optional("bandwidth");
  object.optional("latency");
  EXPECT_EQ(input_complaint([&] { object.finish(); }), "f.json: unknown field 'bandwith' (did you mean 'bandwidth'?)");
}

TEST(JsonReader, NamesAMissingFieldAndWhatStandsInItsPlace) {
  const Json json = parse_json(R"({"latncy": 1})", "f.json");
  EXPECT_EQ(input_complaint([&] { JsonValue(json, "f.json").object().required("latency"); }),
            "f.json: missing field 'latency' (found 'latncy' instead)");
}

TEST(JsonReader, ListsTheNamesOfAChoice) {
  constexpr std::array names{std::pair<std::string_view, int>{"one", 1}, std::pair<std::string_view, int>{"two", 2}};
  EXPECT_EQ(complaint_about("\"three\"", [&](const JsonValue& value) { value.one_of<int>(names); }),
            "f.json: x: expected one of 'one', 'two', got \"three\"");
}

TEST(JsonReader, SaysWhereTextIsMalformed) {
  EXPECT_THAT(input_complaint([] { parse_json("{\n  \"a\": }", "f.json"); }),
              StartsWith("f.json: not JSON: line 2, column 8: value - "));
  EXPECT_THAT(input_complaint([] { parse_json("", "f.json"); }), StartsWith("f.json: not JSON: line 1, column 1"));
  EXPECT_THAT(input_complaint([] { parse_json("\x01\x02", "f.json"); }), StartsWith("f.json: not JSON"));
}

TEST(JsonReader, RefusesDeepNestingBeforeItCostsMemory) {
  const std::string deep(1'000'000, '[');
  EXPECT_EQ(input_complaint([&] { parse_json(deep, "f.json"); }), "f.json: expected at most 100 levels of nesting");
  // Brackets inside a text are no nesting.
  EXPECT_NO_THROW(parse_json("\"" + std::string(1000, '[') + "\\\"[\"", "f.json"));
}

TEST(JsonReader, EscapesWhatItQuotes) {
  EXPECT_THAT(complaint_about("\"\\u001b[31m\"", [](const JsonValue& value) { value.bytes(); }),
              HasSubstr("\\x1b[31m"));
}

}  // namespace
}  // namespace stagecraft
