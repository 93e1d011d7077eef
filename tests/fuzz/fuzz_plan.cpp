#include <nlohmann/json.hpp>

#include "models/plan.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace stagecraft;
  return fuzz(data, size, [](std::string_view text) {
    const Json json = parse_json(text, "plan.json");
    const Plan plan = plan_from_json(JsonValue(json, "plan.json"));
    plan.lowered();
    // What was accepted must be written and accepted again.
    const Json written = to_json(plan);
    plan_from_json(JsonValue(written, "written.json"));
  });
}
