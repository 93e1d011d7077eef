// Any text is read as a network or refused with an Error; what is read is written and read back.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "models/error.hpp"
#include "models/network/network.hpp"

namespace {

using namespace stagecraft;

std::optional<Network> read(std::string_view text) {
  try {
    const Json document = parse_json(text, "fuzz");
    return network_from_json(JsonValue(document, "fuzz"), "fuzz");
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (const auto network = read({reinterpret_cast<const char*>(data), size})) {
    const Json written = to_json(*network);
    if (!(network_from_json(JsonValue(written, "written"), "") == *network)) std::abort();
  }
  return 0;
}
