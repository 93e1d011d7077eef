#include "models/json_reader.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "models/files.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

constexpr int max_depth = 100;

// What a value looks like in a message: scalars as written, containers by their kind.
std::string shown(const Json& value) {
  if (value.is_string()) return "\"" + printable(value.get_ref<const std::string&>()) + "\"";
  if (value.is_object()) return "an object";
  if (value.is_array()) return fmt::format("an array of {}", value.size());
  return printable(value.dump());
}

void check_depth(std::string_view text, const std::string& file) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > max_depth) throw bad_input("{}: expected at most {} levels of nesting", file, max_depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
}

}  // namespace

Json parse_json(std::string_view text, const std::string& file) {
  check_depth(text, file);
  try {
    return Json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    // Of "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while parsing value - why" the
    // place and the reason are for the reader.
    std::string message = error.what();
    for (const std::string_view noise : {"[json.exception.", "parse error at ", "syntax error while parsing "}) {
      const auto at = message.find(noise);
      if (at == std::string::npos) continue;
      const std::size_t end = noise.front() == '[' ? message.find("] ") + 2 : at + noise.size();
      message.erase(at, end - at);
    }
    throw bad_input("{}: not JSON: {}", file, printable(message, 200));
  }
}

Json read_json(const std::filesystem::path& path) { return parse_json(read_file(path), path.string()); }

Error JsonValue::complain(std::string_view message) const {
  return bad_input("{}: {}{}{}", file_, path_, path_.empty() ? "" : ": ", message);
}

std::size_t JsonValue::one_of(const std::vector<std::string_view>& names) const {
  std::string list;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (json().is_string() && json().get_ref<const std::string&>() == names[i]) return i;
    list += (i == 0 ? "'" : ", '") + std::string(names[i]) + "'";
  }
  throw expected("one of " + list);
}

Error JsonValue::expected(std::string_view expected) const {
  return complain(fmt::format("expected {}, got {}", expected, shown(*value_)));
}

JsonObject JsonValue::object() const {
  if (!value_->is_object()) throw expected("an object");
  return JsonObject(*this);
}

std::vector<JsonValue> JsonValue::array(std::size_t max_size) const {
  if (!value_->is_array()) throw expected("an array");
  if (value_->size() > max_size) throw expected(fmt::format("an array of at most {}", max_size));
  std::vector<JsonValue> elements;
  elements.reserve(value_->size());
  for (std::size_t i = 0; i < value_->size(); ++i) {
    elements.emplace_back((*value_)[i], file_, fmt::format("{}[{}]", path_, i));
  }
  return elements;
}

std::string JsonValue::string(std::size_t max_size) const {
  if (!value_->is_string()) throw expected("a text");
  const auto& text = value_->get_ref<const std::string&>();
  if (text.size() > max_size) throw expected(fmt::format("a text of at most {} characters", max_size));
  return text;
}

bool JsonValue::boolean() const {
  if (!value_->is_boolean()) throw expected("true or false");
  return value_->get<bool>();
}

std::int64_t JsonValue::integer(std::int64_t min, std::int64_t max) const {
  const auto fail = [&] { return expected(fmt::format("a whole number from {} to {}", min, max)); };
  if (!value_->is_number()) throw fail();
  std::int64_t number = 0;
  if (value_->is_number_unsigned()) {
    const auto large = value_->get<std::uint64_t>();
    if (large > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) throw fail();
    number = static_cast<std::int64_t>(large);
  } else if (value_->is_number_integer()) {
    number = value_->get<std::int64_t>();
  } else {
    const double real = value_->get<double>();
    if (!(std::abs(real) < 9e15) || real != std::floor(real)) throw fail();
    number = static_cast<std::int64_t>(real);
  }
  if (number < min || number > max) throw fail();
  return number;
}

double JsonValue::number(double min, double max) const {
  const auto fail = [&] {
    const bool any = min == std::numeric_limits<double>::lowest() && max == std::numeric_limits<double>::max();
    return expected(any ? "a number" : fmt::format("a number from {} to {}", min, max));
  };
  if (!value_->is_number()) throw fail();
  const double number = value_->get<double>();
  if (!(number >= min && number <= max)) throw fail();
  return number;
}

Seconds JsonValue::seconds() const {
  const auto time = value_->is_string() ? parse_seconds(string()) : std::nullopt;
  if (!time) throw expected("a time such as \"1.5 us\"");
  return *time;
}

Bytes JsonValue::bytes() const {
  const auto size = value_->is_string() ? parse_bytes(string()) : std::nullopt;
  if (!size) throw expected("a size such as \"80 GiB\"");
  return *size;
}

BytesPerSecond JsonValue::bytes_per_second() const {
  const auto rate = value_->is_string() ? parse_bytes_per_second(string()) : std::nullopt;
  if (!rate) throw expected("a rate such as \"900 GB/s\"");
  return *rate;
}

FlopsPerSecond JsonValue::flops_per_second() const {
  const auto rate = value_->is_string() ? parse_flops_per_second(string()) : std::nullopt;
  if (!rate) throw expected("a rate such as \"989 TFLOP/s\"");
  return *rate;
}

std::optional<JsonValue> JsonObject::optional(std::string_view name) {
  known_.emplace_back(name);
  const auto it = value_.json().find(std::string(name));
  if (it == value_.json().end() || it->is_null()) return std::nullopt;
  return JsonValue(*it, value_.file(),
                   value_.path().empty() ? std::string(name) : fmt::format("{}.{}", value_.path(), name));
}

JsonValue JsonObject::required(std::string_view name) {
  auto field = optional(name);
  if (!field) {
    std::vector<std::string> present;
    for (const auto& [key, unused] : value_.json().items()) {
      if (std::find(known_.begin(), known_.end(), key) == known_.end()) present.push_back(key);
    }
    const std::string near = nearest_name(name, present);
    throw value_.complain(fmt::format("missing field '{}'{}", name,
                                      near.empty() ? "" : fmt::format(" (found '{}' instead)", printable(near))));
  }
  return *std::move(field);
}

std::vector<std::pair<std::string, JsonValue>> JsonObject::fields() {
  std::vector<std::pair<std::string, JsonValue>> all;
  for (const auto& [key, child] : value_.json().items()) {
    known_.push_back(key);
    const std::string name = printable(key);
    all.emplace_back(
        key, JsonValue(child, value_.file(), value_.path().empty() ? name : fmt::format("{}.{}", value_.path(), name)));
  }
  return all;
}

void JsonObject::finish() const {
  for (const auto& [key, unused] : value_.json().items()) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    throw value_.complain(fmt::format("unknown field '{}'{}", printable(key), did_you_mean(key, known_)));
  }
}

}  // namespace stagecraft
