#include "models/cost/profiled.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

namespace stagecraft {
namespace {

using testing::HasSubstr;

Measured measured(double median) { return {Seconds(median), Seconds(median / 2), Seconds(median * 2), 5}; }

LayerSample sample(std::int64_t microbatch, double forward, double stash) {
  return {.microbatch = microbatch,
          .forward = measured(forward),
          .backward_input = measured(2 * forward),
          .backward_weight = measured(3 * forward),
          .recompute = measured(forward / 2),
          .stash = Bytes(stash),
          .split = Bytes(stash / 2),
          .workspace = Bytes(stash / 4)};
}

Profile profile() {
  Profile result;
  result.network = "demo";
  result.device.name = "core";
  result.sequence = 128;
  result.layers = {
      {"block", Recompute::none, 0, 0, 10, measured(7), {sample(2, 4, 8), sample(4, 8, 16), sample(8, 12, 32)}},
      {"block", Recompute::full, 0, 0, 10, measured(7), {sample(4, 8, 16)}}};
  return result;
}

Layer block() {
  Layer layer;
  layer.name = "block.0";
  layer.kind = "block";
  layer.parameters = 10;
  return layer;
}

Workload workload(std::int64_t microbatch, Recompute recompute = Recompute::none) {
  return {.microbatch = microbatch,
          .sequence = 128,
          .precision = DataType::fp32,
          .optimizer = Optimizer::adamw,
          .recompute = recompute};
}

Workload plan_of_one(std::int64_t microbatch) {
  Workload work = workload(microbatch);
  work.microbatches = 1;
  return work;
}

LayerCost price(const Workload& workload, const Layer& layer = block()) {
  return ProfiledCostModel(profile()).layer_cost(layer, workload, profile().device);
}

std::string message(const Workload& workload, const Layer& layer = block(), const char* device = "core") {
  DeviceType type;
  type.name = device;
  try {
    ProfiledCostModel(profile()).layer_cost(layer, workload, type);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    return error.what();
  }
  return "no error";
}

TEST(Profiled, TakesTheMediansOfASampledMicrobatch) {
  const LayerCost cost = price(workload(4));
  EXPECT_EQ(cost.forward, Seconds(8));
  EXPECT_EQ(cost.backward_input, Seconds(16));
  EXPECT_EQ(cost.backward_weight, Seconds(24));
  EXPECT_EQ(cost.recompute, Seconds(4));
  EXPECT_EQ(cost.optimizer, Seconds(7));
  EXPECT_EQ(cost.stash, Bytes(16));
  EXPECT_EQ(cost.split, Bytes(8));
  EXPECT_EQ(cost.workspace, Bytes(4));
  EXPECT_EQ(cost.weights, Bytes(40));
  EXPECT_EQ(cost.gradients, Bytes(40));
  EXPECT_EQ(cost.optimizer_state, Bytes(80));
}

TEST(Profiled, KnowsTheRecomputationThatEveryKindWasMeasuredWith) {
  const ProfiledCostModel model(profile());
  EXPECT_TRUE(model.knows(Recompute::none));
  EXPECT_TRUE(model.knows(Recompute::full));
  EXPECT_FALSE(model.knows(Recompute::selective));
  Profile more = profile();
  more.layers.push_back({"head", Recompute::none, 0, 0, 10, measured(7), {sample(2, 4, 8)}});
  EXPECT_TRUE(ProfiledCostModel(more).knows(Recompute::none));
  EXPECT_FALSE(ProfiledCostModel(more).knows(Recompute::full));
}

TEST(Profiled, TakesTheMeasurementsWithTheNearestNumberOfBusyNeighbours) {
  Profile slices = profile();
  slices.device.multiprocessors = 25, slices.device.gpu_multiprocessors = 100;
  for (const int busy : {1, 3}) {
    LayerProfile layer = slices.layers.front();
    layer.busy_neighbours = busy;
    for (LayerSample& sample : layer.samples) sample.forward = measured((1 + busy) * sample.forward.median.value());
    slices.layers.push_back(layer);
  }
  const ProfiledCostModel model(slices);
  Workload work = workload(2);
  EXPECT_EQ(model.layer_cost(block(), work, slices.device).forward, Seconds(16)) << "all are busy";
  for (const auto& [busy, forward] : {std::pair(0, 4), std::pair(1, 8), std::pair(3, 16), std::pair(9, 16)}) {
    work.busy_neighbours = busy;
    EXPECT_EQ(model.layer_cost(block(), work, slices.device).forward, Seconds(forward)) << busy;
  }
}

constexpr double high = 2e9, low = 1e9;  // Hz

void set_clock(LayerProfile& layer, double load, double clock) {
  for (LayerSample& sample : layer.samples) sample.clock = clock, sample.load = load;
}

// Measured again, beside as many neighbours as ever, with rests: forwards take so much of their time, weight gradients
// a quarter more.
void add_rested(Profile& profile, double rest, double load, double clock, double forward) {
  LayerProfile rested = profile.layers.front();
  for (const LayerProfile& layer : profile.layers) {
    if (layer.recompute == rested.recompute && layer.busy_neighbours > rested.busy_neighbours) rested = layer;
  }
  rested.rest = rest;
  set_clock(rested, load, clock);
  for (LayerSample& sample : rested.samples) {
    sample.forward = measured(forward * sample.forward.median.value());
    sample.backward_weight = measured(1.25 * sample.backward_weight.median.value());
  }
  profile.layers.push_back(rested);
}

// A GPU that ticks at `low` Hz when it never rests.
Profile hot() {
  Profile result = profile();
  set_clock(result.layers.front(), 1, low);
  return result;
}

double forward_at(const Profile& profile, double load, std::optional<int> busy_neighbours = std::nullopt) {
  Workload work = workload(4);
  work.load = {load, load};
  work.busy_neighbours = busy_neighbours;
  return ProfiledCostModel(profile).layer_cost(block(), work, profile.device).forward.value();
}

constexpr double close = 1e-9;

// The exponent by which times fall with the clock, if measurements at such clocks, as ratios to the steady one, show
// `exponent`: they are weighed against 0.45, by how far the clocks are apart, with a tenth for the latter.
double drawn(double exponent, std::initializer_list<double> ratios) {
  double products = 0.01 * 0.45, squares = 0.01;
  for (const double ratio : ratios) {
    products += exponent * std::log(ratio) * std::log(ratio);
    squares += std::log(ratio) * std::log(ratio);
  }
  return products / squares;
}

TEST(Profiled, TheClockRisesLinearlyFromLoadToLoadAndTimesFallWithIt) {
  EXPECT_FALSE(ProfiledCostModel(profile()).heeds_load());
  Profile rested = hot();
  add_rested(rested, 0.8, 0.5, 1.5e9, 1 / 1.5);  // nothing but multiprocessors counts
  add_rested(rested, 0.2, 0.75, 1.25e9, 1 / 1.25);
  EXPECT_TRUE(ProfiledCostModel(rested).heeds_load());
  const double exponent = drawn(1, {1.5, 1.25});
  EXPECT_NEAR(exponent, 0.97, 0.01);
  const auto at_clock = [&](double clock) { return 8 / std::pow(clock, exponent); };  // of 8 s at 1 GHz
  for (const auto& [load, clock] :
       {std::pair(1.0, 1.0), std::pair(0.9, 1.1), std::pair(0.75, 1.25), std::pair(0.6, 1.4), std::pair(0.5, 1.5)}) {
    EXPECT_NEAR(forward_at(rested, load), at_clock(clock), 0.02) << load;
  }
  EXPECT_NEAR(forward_at(rested, 0.2), at_clock(1.5), 0.02) << "no clock was higher";
  rested.layers.back().samples.front().clock = high;  // of another micro-batch
  EXPECT_NEAR(forward_at(rested, 0.3), at_clock(1.7), 0.02) << "goes on rising";
  EXPECT_NEAR(forward_at(rested, 0), at_clock(2), 0.02) << "up to the highest";
}

TEST(Profiled, EachTimeFollowsTheClockAsItWasMeasuredTo) {
  Profile rested = hot();
  add_rested(rested, 0.8, 0.5, high, std::pow(0.5, 0.6));
  Workload work = workload(4);
  const ProfiledCostModel model(rested);
  work.load = {1, 0.5};
  EXPECT_NEAR(model.layer_cost(block(), work, rested.device).forward.value(), 8, 1e-12)
      << "only backwards find it rested";
  work.load = {0.5, 0.5};
  const LayerCost cost = model.layer_cost(block(), work, rested.device);
  EXPECT_NEAR(cost.forward.value(), 8 * std::pow(0.5, drawn(0.6, {2})), close);
  EXPECT_NEAR(cost.backward_input.value(), 16 * std::pow(0.5, drawn(0, {2})), close) << "takes as long";
  EXPECT_EQ(cost.backward_weight, Seconds(24)) << "a higher clock makes nothing slower";
  EXPECT_EQ(cost.optimizer, Seconds(7));
  work.recompute = Recompute::full;
  EXPECT_EQ(model.layer_cost(block(), work, rested.device).forward, Seconds(8)) << "not measured with rests";
}

TEST(Profiled, WhatHardlyChangesTheClockSaysLittleOfTimes) {
  Profile noisy = hot();
  add_rested(noisy, 0.8, 0.5, 1.001e9, 0.5);
  EXPECT_NEAR(forward_at(noisy, 0.5), 8, 0.01);
  Profile slower = hot();
  add_rested(slower, 0.8, 0.5, 0.9e9, 1);
  EXPECT_NEAR(forward_at(slower, 0.5), 8, 1e-3) << "less load lowers no clock";
}

TEST(Profiled, NeighboursOfTheMomentAndTheClockOfTheLoadAreApart) {
  Profile slices = hot();
  slices.device.multiprocessors = 25, slices.device.gpu_multiprocessors = 100;
  for (const auto& [neighbours, clock, slower] : {std::tuple(1, 1.6e9, 1.25), std::tuple(3, low, 2.0)}) {
    LayerProfile busy = slices.layers.front();
    busy.busy_neighbours = neighbours;
    set_clock(busy, (neighbours + 1) / 4.0, clock);
    for (LayerSample& sample : busy.samples) sample.forward = measured(slower * sample.forward.median.value());
    slices.layers.push_back(busy);
  }
  set_clock(slices.layers.front(), 0.25, 1.9e9);
  add_rested(slices, 0.2, 0.75, 1.3e9, 1 / 1.3);
  const auto faster = [exponent = drawn(1, {1.3})](double clock) { return 1 / std::pow(clock, exponent); };
  EXPECT_NEAR(forward_at(slices, 1, 3), 16, 0.02) << "as measured";
  EXPECT_NEAR(forward_at(slices, 0.5, 1), 10, 0.02) << "as measured";
  EXPECT_NEAR(forward_at(slices, 0.25, 0), 8, 0.02) << "as measured";
  EXPECT_NEAR(forward_at(slices, 1, 1), 10 * faster(1 / 1.6), 0.02)
      << "beside one neighbour, at the clock of a busy GPU";
  EXPECT_NEAR(forward_at(slices, 0.5, 3), 16 * faster(1.6), 0.02) << "beside all, at the clock of a rested one";
  EXPECT_NEAR(forward_at(slices, 0.625, 0), 8 * faster(1.45 / 1.9), 0.02)
      << "between loads measured with neighbours and rests";
}

TEST(Profiled, BesideForwardsTimesAreThoseMeasuredSo) {
  Profile slices = hot();
  slices.device.multiprocessors = 50, slices.device.gpu_multiprocessors = 100;
  slices.layers.front().busy_neighbours = 1;
  LayerProfile forwards = slices.layers.front();
  forwards.beside_forwards = true;
  set_clock(forwards, 1, high);
  for (LayerSample& sample : forwards.samples) sample.forward = measured(0.5 * sample.forward.median.value());
  forwards.optimizer = measured(100);
  slices.layers.push_back(forwards);
  add_rested(slices, 0.8, 0.5, high, 0.5);
  Workload work = workload(4);
  const auto price = [&] { return ProfiledCostModel(slices).layer_cost(block(), work, slices.device); };
  EXPECT_NEAR(price().forward.value(), 8, close);
  work.beside_forwards = true;
  const double faster = std::pow(2, drawn(1, {2}));
  EXPECT_NEAR(price().forward.value(), 4 * faster, close)
      << "at the clock of a busy GPU, not at that of the measurement";
  EXPECT_EQ(price().optimizer, Seconds(7)) << "which does not begin beside forwards";
  work.load = {0.5, 0.5};
  EXPECT_NEAR(price().forward.value(), 4, close);
  work.recompute = Recompute::full;
  EXPECT_EQ(price().forward, Seconds(8)) << "not measured";
}

TEST(Profiled, ClocksOfMuchTheSameLoadAreGuessesOfOne) {
  Profile hunting = hot();
  add_rested(hunting, 0.8, 0.5, 1.5e9, 1 / 1.5);
  add_rested(hunting, 0.3, 0.75, 1.2e9, 1 / 1.2);
  add_rested(hunting, 0.2, 0.75, 1.3e9, 1 / 1.3);
  const double exponent = drawn(1, {1.5, 1.2, 1.3});
  EXPECT_NEAR(forward_at(hunting, 0.75), 8 / std::pow(1.25, exponent), 0.02);
  EXPECT_NEAR(forward_at(hunting, 0.5), 8 / std::pow(1.5, exponent), 0.02);
}

TEST(Profiled, AFullBackwardSavesWhatItWasMeasuredToSave) {
  Profile fused = profile();
  for (LayerSample& sample : fused.layers.front().samples) {
    sample.backward = measured(4.5 * sample.forward.median.value());  // the parts take 2 and 3 times the forward
  }
  const ProfiledCostModel model(fused);
  EXPECT_EQ(model.layer_cost(block(), workload(4), fused.device).backward_saving, Seconds(4));
  fused.layers.front().samples.front().backward = measured(1000);
  EXPECT_EQ(ProfiledCostModel(fused).layer_cost(block(), workload(2), fused.device).backward_saving, Seconds(0))
      << "noise is no cost";
  EXPECT_EQ(price(workload(4)).backward_saving, Seconds(0)) << "not measured";
}

TEST(Profiled, AMeanBackwardHasItsShareOfAFirstOneThatReplacesGradients) {
  Profile fused = profile();
  for (LayerSample& sample : fused.layers.front().samples) {
    sample.backward = measured(4.5 * sample.forward.median.value());  // the parts take 2 and 3 times the forward
    sample.first_backward = measured(sample.backward->median.value() - 6);
  }
  const ProfiledCostModel model(fused);
  EXPECT_TRUE(model.heeds_microbatches());
  const auto price_of = [&](std::int64_t microbatches) {
    Workload work = workload(4);
    work.microbatches = microbatches;
    return model.layer_cost(block(), work, fused.device);
  };
  for (const std::int64_t microbatches : {1, 2, 3, 100}) {
    const LayerCost cost = price_of(microbatches);
    EXPECT_DOUBLE_EQ(cost.backward_weight.value(), 24 - 6.0 / static_cast<double>(microbatches));
    EXPECT_EQ(cost.backward_input, Seconds(16));
    EXPECT_EQ(cost.backward_saving, Seconds(4));
  }
  EXPECT_EQ(price_of(0).backward_weight, Seconds(24)) << "very many";
  fused.layers.front().samples[1].first_backward = measured(0);
  EXPECT_EQ(ProfiledCostModel(fused).layer_cost(block(), plan_of_one(4), fused.device).backward_weight, Seconds(4))
      << "no backward is shorter than nothing";
}

TEST(Profiled, HeedsTheNumberOfMicrobatchesOnlyWhereTheFirstWasMeasured) {
  EXPECT_FALSE(ProfiledCostModel(profile()).heeds_microbatches());
  EXPECT_EQ(price(plan_of_one(4)).backward_weight, Seconds(24));
}

TEST(Profiled, HandsOnOverheads) {
  Profile measured = profile();
  measured.action_overhead = Seconds(1);
  measured.step_overhead = Seconds(2);
  measured.kept_outputs = 3;
  measured.message_buffers = 4;
  const Overheads overheads = ProfiledCostModel(measured).overheads(measured.device);
  EXPECT_EQ(overheads.action, Seconds(1));
  EXPECT_EQ(overheads.step, Seconds(2));
  EXPECT_EQ(overheads.kept_outputs, 3);
  EXPECT_EQ(overheads.message_buffers, 4);
}

TEST(Profiled, InterpolatesBetweenSamples) {
  EXPECT_EQ(price(workload(3)).forward, Seconds(6));
  EXPECT_EQ(price(workload(6)).forward, Seconds(10));
  EXPECT_EQ(price(workload(6)).stash, Bytes(24));
}

TEST(Profiled, ExtrapolatesAlongTheNearestLine) {
  EXPECT_EQ(price(workload(1)).forward, Seconds(2));
  EXPECT_EQ(price(workload(16)).forward, Seconds(20));
  EXPECT_EQ(price(workload(16)).stash, Bytes(64));
}

TEST(Profiled, ExtrapolationNeverFallsBelowZero) {
  Profile steep = profile();
  steep.layers[0].samples = {sample(2, 1, 8), sample(4, 8, 16)};
  EXPECT_EQ(ProfiledCostModel(steep).layer_cost(block(), workload(1), steep.device).forward, Seconds(0));
}

TEST(Profiled, ASingleSampleScalesInProportion) {
  EXPECT_EQ(price(workload(1, Recompute::full)).forward, Seconds(2));
  EXPECT_EQ(price(workload(8, Recompute::full)).stash, Bytes(32));
}

TEST(Profiled, SaysWhichConditionDiffers) {
  Workload other = workload(4);
  other.sequence = 64;
  EXPECT_THAT(message(other), HasSubstr("measured with sequence 128, wanted is 64"));
  other = workload(4);
  other.precision = DataType::bf16;
  EXPECT_THAT(message(other), HasSubstr("measured with precision fp32, wanted is bf16"));
  other = workload(4);
  other.optimizer = Optimizer::sgd;
  EXPECT_THAT(message(other), HasSubstr("measured with optimizer adamw, wanted is sgd"));
  EXPECT_THAT(message(workload(4), block(), "gpu"), HasSubstr("measured with device type core, wanted is gpu"));
}

TEST(Profiled, NamesWhatIsMissing) {
  Layer head = block();
  head.kind = "head";
  head.name = "the head";
  EXPECT_EQ(message(workload(4), head),
            "the profile has no layer kind 'head' with recompute none (of layer 'the head'); measured: block (none), "
            "block (full)");
  EXPECT_THAT(message(workload(4, Recompute::selective)), HasSubstr("no layer kind 'block' with recompute selective"));
  Layer wide = block();
  wide.parameters = 11;
  EXPECT_THAT(message(workload(4), wide), HasSubstr("has 10 parameters, layer 'block.0' has 11"));
}

}  // namespace
}  // namespace stagecraft
