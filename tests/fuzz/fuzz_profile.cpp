// Any text is read as a profile or refused with an Error; what is read is written, reads back equal, and prices layers.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "models/cost/profiled.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace stagecraft;
  return fuzz(data, size, [](std::string_view text) {
    const Json json = parse_json(text, "profile.json");
    const Profile profile = profile_from_json(JsonValue(json, "profile.json"));
    const Json written = to_json(profile);
    if (!(profile_from_json(JsonValue(written, "written.json")) == profile)) std::abort();
    Layer layer;
    layer.kind = profile.layers[0].kind;
    layer.parameters = profile.layers[0].parameters;
    Workload workload{.microbatch = 3,
                      .sequence = profile.sequence,
                      .precision = profile.precision,
                      .optimizer = profile.optimizer,
                      .recompute = profile.layers[0].recompute};
    for (const double load : {1.0, 0.7, 0.0}) {
      workload.load = {load, 1 - load};
      const LayerCost cost = ProfiledCostModel(profile).layer_cost(layer, workload, profile.device);
      if (!(cost.forward >= Seconds(0)) || !(cost.stash >= Bytes(0))) std::abort();
    }
  });
}
