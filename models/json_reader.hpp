// Strict reading of JSON: every value is checked, and every complaint names file, field, value and expectation:
//
//   cluster.json: nodes[0].link.bandwidth: expected a rate such as "900 GB/s", got "fast"
//
// Typical use:
//   const Json document = parse_json(text, "cluster.json");
//   JsonObject cluster = JsonValue(document, "cluster.json").object();
//   const std::string name = cluster.required("name").string();
//   if (auto latency = cluster.optional("latency")) link.latency = latency->seconds();
//   cluster.finish();                     // refuses fields that nobody asked for, with the nearest known name
//
// Views: a JsonValue or JsonObject must not outlive the document it was made from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/error.hpp"
#include "models/units.hpp"

namespace stagecraft {

// Keeps the order of the fields, so that what we write reads as we wrote it.
using Json = nlohmann::ordered_json;

// Throws bad_input "file: line 3, column 7: ..." on malformed text, and on nesting deeper than 100.
Json parse_json(std::string_view text, const std::string& file);
Json read_json(const std::filesystem::path& path);

class JsonObject;

class JsonValue {
 public:
  JsonValue(const Json& value, std::string file, std::string path = "")
      : value_(&value), file_(std::move(file)), path_(std::move(path)) {}

  const Json& json() const { return *value_; }
  const std::string& file() const { return file_; }
  const std::string& path() const { return path_; }

  JsonObject object() const;
  std::vector<JsonValue> array(std::size_t max_size = 1'000'000) const;
  std::string string(std::size_t max_size = 1000) const;
  bool boolean() const;
  // Whole numbers only (12, not 12.5); 1e3 and 4.0 are accepted as they are whole.
  std::int64_t integer(std::int64_t min, std::int64_t max) const;
  double number(double min = std::numeric_limits<double>::lowest(),
                double max = std::numeric_limits<double>::max()) const;
  // Quantities that people write, with their unit: "80 GiB".
  Seconds seconds() const;
  Bytes bytes() const;
  BytesPerSecond bytes_per_second() const;
  FlopsPerSecond flops_per_second() const;
  // The value that `names` gives for the text; complains with the list of names.
  template <class T>
  T one_of(std::span<const std::pair<std::string_view, T>> names) const;

  // Its position among the names.
  std::size_t one_of(const std::vector<std::string_view>& names) const;

  // An error about this value: "file: path: expected EXPECTED, got VALUE".
  Error expected(std::string_view expected) const;
  // An error about this value in other words: "file: path: MESSAGE".
  Error complain(std::string_view message) const;

 private:
  const Json* value_;
  std::string file_;
  std::string path_;
};

class JsonObject {
 public:
  // REQUIRES: value.json() is an object (JsonValue::object() checks).
  explicit JsonObject(JsonValue value) : value_(std::move(value)) {}

  JsonValue required(std::string_view name);
  // Empty when the field is absent or null.
  std::optional<JsonValue> optional(std::string_view name);
  // Every field of the object in file order, for maps with free keys; marks all as known.
  std::vector<std::pair<std::string, JsonValue>> fields();
  // Declares a field that may stand in the file and is not read.
  void ignore(std::string_view name) { known_.emplace_back(name); }
  // Throws bad_input when the object has a field that was not asked for.
  void finish() const;

  const JsonValue& value() const { return value_; }

 private:
  JsonValue value_;
  std::vector<std::string> known_;
};

template <class T>
T JsonValue::one_of(std::span<const std::pair<std::string_view, T>> names) const {
  std::vector<std::string_view> texts;
  for (const auto& [name, result] : names) texts.push_back(name);
  return names[one_of(texts)].second;
}

}  // namespace stagecraft
