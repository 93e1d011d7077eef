#include "runtime/profiler.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "models/cost/profiled.hpp"
#include "models/network/layer_graph.hpp"
#include "tests/runtime/plans.hpp"

namespace stagecraft {
namespace {

Network network_of(const Transformer& transformer) { return {"tiny", transformer, build_graph(transformer)}; }

TEST(Profiler, MeasuresEveryKindAndModeAndTheChannel) {
  const Network network = network_of(tiny_llama(true));
  ProfileOptions options;
  options.microbatches = {2, 1};
  options.sequence = 8;
  options.time_budget = Seconds(0.1);
  int last = -1, of = 0;
  const Profile profile = profile_cpu(network, options, [&](int done, int total, const std::string&) {
    EXPECT_GT(done, last);
    last = done;
    of = total;
  });
  EXPECT_EQ(last, of);
  ASSERT_EQ(profile.layers.size(), 9U);
  for (const LayerProfile& layer : profile.layers) {
    ASSERT_EQ(layer.samples.size(), 2U) << layer.kind;
    EXPECT_EQ(layer.samples[0].microbatch, 1);
    for (const LayerSample& sample : layer.samples) {
      EXPECT_GT(sample.forward.median, Seconds(0));
      EXPECT_GE(sample.forward.count, 3);
      EXPECT_GT(sample.backward_weight.median, Seconds(0));
      EXPECT_EQ(sample.recompute.median > Seconds(0), layer.kind == "block" && layer.recompute == Recompute::full);
    }
    EXPECT_GE(layer.samples[1].stash, layer.samples[0].stash);
  }
  ASSERT_EQ(profile.links.size(), 1U);
  EXPECT_EQ(profile.links[0].kind, "channel");
  EXPECT_GT(profile.links[0].fit.bandwidth, BytesPerSecond(0));

  // What the file format and the cost model make of it.
  const Json json = to_json(profile);
  EXPECT_EQ(profile_from_json(JsonValue(json, "profile.json")), profile);
  const ProfiledCostModel model(profile);
  for (LayerId id = 0; id < network.graph.layers(); ++id) {
    const Workload workload{1, 8, DataType::fp32, Optimizer::adamw, Recompute::full, false};
    EXPECT_GT(model.layer_cost(network.graph[id], workload, profile.device).forward, Seconds(0));
  }
}

TEST(Profiler, MeasuresEverythingOnceWithoutTime) {
  ProfileOptions options;
  options.microbatches = {1, 2};
  options.sequence = 8;
  options.cores = 1;
  options.time_budget = Seconds(0);
  int measurements = 0;
  const Profile profile = profile_cpu(network_of(tiny_gpt()), options,
                                      [&](int done, int total, const std::string&) { measurements += done < total; });
  EXPECT_EQ(measurements, 2 * 3);
  constexpr int in_flight = 8;
  for (const LayerProfile& layer : profile.layers) {
    const std::int64_t each = layer.kind == "block" ? in_flight * tiny_gpt().layers : in_flight;
    for (const LayerSample& sample : layer.samples) EXPECT_EQ(sample.forward.count, each) << layer.kind;
  }
}

TEST(Profiler, RefusesWhatItCannotRun) {
  ProfileOptions options;
  options.sequence = 17;
  EXPECT_THROW(profile_cpu(network_of(tiny_gpt()), options), Error);
  options.sequence = 8;
  Transformer experts = tiny_llama();
  experts.experts = 4;
  experts.experts_per_token = 2;
  EXPECT_THROW(profile_cpu(network_of(experts), options), Error);
  EXPECT_THROW(profile_cpu({"graph", {}, {}}, options), Error);
}

TEST(Profiler, EndsWhenTold) {
  std::atomic<bool> stop = true;
  ProfileOptions options;
  options.sequence = 8;
  options.stop = &stop;
  EXPECT_THROW(profile_cpu(network_of(tiny_gpt()), options), Error);
}

}  // namespace
}  // namespace stagecraft
