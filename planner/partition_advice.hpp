// What to tell about a plan of pipelines and replicas in words: where the time of each rank goes, and what other
// machines would change, found by planning for them with the same search.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "planner/planner.hpp"
#include "planner/what_if.hpp"

namespace stagecraft {

// Of one rank in one step, as the timeline plays it.
struct RankTime {
  std::string device;  // type
  Seconds compute;     // forward and backward
  Seconds messages;    // to the neighbouring ranks and back, while it computes or waits
  Seconds reduction;   // of its gradients over the replicas, in front of the optimizer or beside computation
  Seconds optimizer;
  Seconds waits;  // the rest of the step
};
// By rank. REQUIRES: a priced plan.
std::vector<RankTime> rank_times(const Plan& plan);

// Plans the job for another cluster: ranked, and confirmed where the base plan is. Throws like search().
using Replan = std::function<SearchResult(const Cluster&)>;

// Property by property, by rising factor: all devices or links scaled. `measured`: the model knows devices by what was
// measured on them, so that their rates are no figures that could change. `cluster` is what `found` was planned for,
// without groups; the plan that stays the same is the best one.
std::vector<WhatIf> what_if(const SearchResult& found, const Cluster& cluster, const CostModel& model, bool measured,
                            const Replan& replan);

// The job on other nodes.
struct OtherCluster {
  std::string change;          // "without node 'v100'", "all nodes like 'a100'"
  int devices = 0, used = 0;   // in all, and by the best plan
  double price = 0;            // US dollars an hour of the latter; 0: unknown
  std::optional<double> step;  // seconds; empty: nothing fits
  std::string plan, as;        // as WhatIf's
};
// A cluster of unlike nodes without each kind of them, and with the devices and links of those with the fastest devices
// in all nodes. Of like nodes, and beyond eight kinds: nothing.
struct ChangedCluster {
  std::string change;
  Cluster cluster;
};
std::vector<ChangedCluster> other_nodes(const Cluster& cluster, DataType precision);
std::vector<OtherCluster> what_if_nodes(const SearchResult& found, const Cluster& cluster, const Replan& replan);

}  // namespace stagecraft
