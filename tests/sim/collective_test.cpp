#include "sim/collective.hpp"

#include <gtest/gtest.h>

#include "models/cost/communication.hpp"
#include "tests/sim/plans.hpp"

namespace stagecraft {
namespace {

std::vector<DeviceId> devices(int count) {
  std::vector<DeviceId> result;
  for (int d = 0; d < count; ++d) result.push_back(DeviceId{d});
  return result;
}

Cluster cluster(int devices, int per_node, int nics) {
  test::PlanShape shape;
  shape.ranks = devices;
  shape.devices_per_node = per_node;
  shape.nics = nics;
  shape.local = {Seconds(0.25), BytesPerSecond(1000)};
  shape.network = {Seconds(0.5), BytesPerSecond(100)};
  return test::make_cluster(shape);
}

TEST(AllReduce, IsNothingForOneDevice) {
  const AllReduce sum = plan_all_reduce(cluster(1, 1, 1), devices(1), Bytes(100));
  EXPECT_TRUE(sum.phases.empty());
  EXPECT_EQ(sum.time, Seconds(0));
}

TEST(AllReduce, IsOneRingWhereEveryDeviceHasItsNode) {
  const AllReduce sum = plan_all_reduce(cluster(4, 1, 1), devices(4), Bytes(400));
  ASSERT_EQ(sum.phases.size(), 1U);
  EXPECT_EQ(sum.time, Seconds(2 * 3 * (1 + 1)));
  for (int d = 0; d < 4; ++d) {
    const RingHop& hop = sum.phases[0].hops[static_cast<std::size_t>(d)];
    EXPECT_EQ(hop.from, DeviceId{d});
    EXPECT_EQ(hop.to, DeviceId{(d + 1) % 4});
    EXPECT_EQ(hop.steps, 6);
    EXPECT_EQ(hop.bytes, Bytes(600));
  }
}

TEST(AllReduce, UsesAllNicsOfANodeWhereThatIsFaster) {
  const Cluster nodes = cluster(8, 4, 4);
  const AllReduce sum = plan_all_reduce(nodes, devices(8), Bytes(8000));
  ASSERT_EQ(sum.phases.size(), 3U);
  // Inside: 3 (0.25 + 2000 / 1000), twice; between: 2 (1 + 1000 / 100).
  EXPECT_EQ(sum.time, Seconds(2 * 3 * 2.25 + 2 * 11));
  EXPECT_EQ(sum.time, all_reduce_time(nodes, devices(8), Bytes(8000)));
  EXPECT_EQ(sum.phases[0].hops[3].to, DeviceId{0});
  EXPECT_EQ(sum.phases[1].hops[3].to, DeviceId{7});
  EXPECT_EQ(sum.phases[1].hops[3].steps, 2);
  EXPECT_EQ(sum.phases[1].hops[3].bytes, Bytes(2000));
  EXPECT_EQ(sum.phases[2].hops[3].to, DeviceId{0});
}

TEST(AllReduce, KeepsTheOrderOfItsDevices) {
  const std::vector<DeviceId> backwards{DeviceId{2}, DeviceId{0}, DeviceId{1}};
  const AllReduce sum = plan_all_reduce(cluster(3, 1, 1), backwards, Bytes(300));
  EXPECT_EQ(sum.phases[0].hops[0].from, DeviceId{2});
  EXPECT_EQ(sum.phases[0].hops[0].to, DeviceId{0});
  EXPECT_EQ(sum.phases[0].hops[1].to, DeviceId{1});
}

}  // namespace
}  // namespace stagecraft
