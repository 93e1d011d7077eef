// The cluster as SimGrid sees it: hosts are ends of routes, links are ports.
//
// All hosts are in one star zone. An end is a device on a plane (traffic.hpp): its route holds the ports outward and
// inward of that plane, so that a flow picks its plane by its ends. SimGrid gives flows shares in proportion to
// 1/latency of their route; fair shares need every route to have the same latency. So the first port of each route has
// latency 1 s, all others 0, and a callback scales it to the true one.
#pragma once

#include <map>
#include <simgrid/s4u.hpp>
#include <span>
#include <utility>
#include <vector>

#include "sim/folding.hpp"
#include "sim/traffic.hpp"

namespace stagecraft {

class SimGridPlatform {
 public:
  // Builds hosts and links for the flows of the representatives and seals the zone. Bandwidths are scaled by
  // `byte_scale`: payloads are whole numbers in SimGrid, and scaled ones lose nothing that counts.
  // REQUIRES: a fresh engine with its configuration set.
  SimGridPlatform(const Cluster& cluster, const Ports& ports, const Traffic& traffic, const Folding& folding,
                  double byte_scale);

  // The ends of a flow of a representative. REQUIRES: from != to.
  std::pair<simgrid::s4u::Host*, simgrid::s4u::Host*> ends(const Flow& flow) const;

 private:
  struct End {
    simgrid::s4u::Host* host = nullptr;
    std::vector<PortId> out, in;
  };
  // The first call for a class of ports makes its link.
  std::vector<simgrid::s4u::LinkInRoute> links(simgrid::s4u::NetZone& zone, std::span<const PortId> ports);

  const Ports* ports_;
  const Folding* folding_;
  double byte_scale_;
  std::map<std::pair<DeviceId, Plane>, End> ends_;
  std::vector<simgrid::s4u::Link*> links_;  // by class of port
};

}  // namespace stagecraft
