#include <nlohmann/json.hpp>

#include "models/trace.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace stagecraft;
  return fuzz(data, size, [](std::string_view text) {
    const Json json = parse_json(text, "trace.json");
    const Trace trace = trace_from_json(JsonValue(json, "trace.json"));
    if (!trace.step_times.empty() && !trace.events.empty()) summarize(trace);
    const Json written = to_json(trace);
    trace_from_json(JsonValue(written, "written.json"));
  });
}
