// From a judged layout to a plan, with its step predicted as every executor sees it.
#pragma once

#include <string>

#include "planner/judge.hpp"
#include "planner/planner.hpp"

namespace stagecraft {

// "2x A100, 2x V100": the types along a pipeline.
std::string types_along(const Cluster& cluster, const Assignment& assignment);

// The one that is nearest to its limit. REQUIRES: a plan with predicted peaks.
DeviceMemory fullest_device(const Plan& plan);

// US dollars an hour of all devices in use; 0: unknown for some.
double price_of(const Plan& plan);

class PlanMaker {
 public:
  // All are used, not owned.
  PlanMaker(const Network& network, const Cluster& cluster, const CostModel& model, const SearchSpace& space,
            Judge& judge);

  // A plan that validates, priced by the model, with timeline, breakdown and peak memory; the verdict is left empty.
  RankedPlan make(const Judgement& judgement);

 private:
  // `is_usual`: the schedule is that of the layout, not made for this plan's times.
  void predict(const Judgement& judgement, bool is_usual, RankedPlan& ranked);

  const Network& network_;
  const Cluster& cluster_;
  const CostModel& model_;
  const SearchSpace& space_;
  Judge& judge_;
  std::string network_digest_, cluster_digest_;
};

}  // namespace stagecraft
