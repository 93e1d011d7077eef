#include "planner/assignment.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/planner/helpers.hpp"

namespace stagecraft {
namespace {

using ::testing::ElementsAre;

std::vector<int> row(const Assignment& assignment, std::size_t replica) {
  std::vector<int> devices;
  for (const DeviceId device : assignment.devices[replica]) devices.push_back(device.value);
  return devices;
}

TEST(Assignments, GiveAPipelineConsecutiveDevices) {
  const Cluster cluster = make_cluster({{1, 8}});
  const auto found = assignments(cluster, std::vector<std::vector<int>>{{0}}, 3, 2);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_THAT(row(found[0], 0), ElementsAre(0, 1, 2));
  EXPECT_THAT(row(found[0], 1), ElementsAre(3, 4, 5));
}

TEST(Assignments, GiveAllReplicasOfARankOneType) {
  const Cluster cluster = make_cluster({{1, 4}, {2, 4}});  // devices 0-3 and 4-7
  const auto found = assignments(cluster, std::vector<std::vector<int>>{{1, 0}}, 4, 2);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_THAT(found[0].types, ElementsAre(1, 1, 0, 0));
  EXPECT_THAT(row(found[0], 0), ElementsAre(4, 5, 0, 1));
  EXPECT_THAT(row(found[0], 1), ElementsAre(6, 7, 2, 3));
  EXPECT_THAT(found[1].types, ElementsAre(0, 0, 1, 1));
}

TEST(Assignments, TakeThePreferredTypeFirst) {
  const Cluster cluster = make_cluster({{1, 4}, {2, 4}});
  const auto found = assignments(cluster, std::vector<std::vector<int>>{{1, 0}}, 3, 1);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_THAT(row(found[0], 0), ElementsAre(4, 5, 6));
}

TEST(Assignments, AreNoneWhereTypesHaveTooFewDevicesForTheReplicas) {
  // Six devices, but three replicas of two ranks would mix types within a rank.
  const Cluster cluster = make_cluster({{1, 5}, {2, 1}});
  EXPECT_TRUE(assignments(cluster, std::vector<std::vector<int>>{{0, 1}}, 2, 3).empty());
}

}  // namespace
}  // namespace stagecraft
