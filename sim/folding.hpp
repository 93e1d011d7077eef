// Which replicas of a plan do the same at the same time, so that one of them stands for all.
//
// Replicas and ports are sorted into classes such that every port of a class carries equally many flows of each class
// of flows, and every flow of a class goes through equally many ports of each class (an equitable partition, found by
// colour refinement). Max-min fair rates are then equal within a class (the filling sees no difference), so all flows
// of a class begin and end together, by induction over the events of the step. One replica of each class is enough, on
// ports with the share of the bandwidth that falls to it: that is exact, not an approximation.
#pragma once

#include <vector>

#include "sim/traffic.hpp"

namespace stagecraft {

struct Folding {
  std::vector<int> representatives;    // replicas that are simulated
  std::vector<int> representative_of;  // by replica: position in `representatives`
  std::vector<int> port_class;         // by port; -1: unused
  std::vector<BytesPerSecond> class_bandwidth;
};

// Every replica for itself, every port its own class.
Folding unfolded(const Traffic& traffic, const Ports& ports);

// The coarsest folding; unfolded() where flows of classes of unlike size meet at a port, which one representative of
// each cannot stand for.
Folding fold(const Traffic& traffic, const Ports& ports, const Cluster& cluster);

}  // namespace stagecraft
