// Any text is read as a cluster or refused with an Error; what is read is written and reads back equal.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "models/cluster/cluster.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace stagecraft;
  return fuzz(data, size, [](std::string_view text) {
    const Json json = parse_json(text, "cluster.json");
    const Cluster cluster = cluster_from_json(JsonValue(json, "cluster.json"));
    cluster.path({0}, {static_cast<std::int32_t>(cluster.devices.size()) - 1});
    if (cluster.devices.size() > 10'000) return;  // large ones take too long to be worth writing
    const Json written = to_json(cluster);
    if (!(cluster_from_json(JsonValue(written, "written.json")) == cluster)) std::abort();
  });
}
