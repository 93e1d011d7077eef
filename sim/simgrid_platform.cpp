#include "sim/simgrid_platform.hpp"

#include <fmt/format.h>

#include <simgrid/kernel/resource/NetworkModelIntf.hpp>

namespace stagecraft {

namespace sg = simgrid::s4u;

namespace {

DeviceId device_of(const sg::Host& host) {
  // Stored as a pointer, which is all that a host carries.
  return DeviceId{static_cast<std::int32_t>(reinterpret_cast<std::intptr_t>(host.get_data<void>()))};
}

}  // namespace

std::vector<sg::LinkInRoute> SimGridPlatform::links(sg::NetZone& zone, std::span<const PortId> ports) {
  std::vector<sg::LinkInRoute> result;
  for (const PortId port : ports) {
    const auto port_class = static_cast<std::size_t>(folding_->port_class[static_cast<std::size_t>(port.value)]);
    sg::Link*& link = links_[port_class];
    if (link == nullptr) {
      const double bandwidth = folding_->class_bandwidth[port_class].value() * byte_scale_;
      link = zone.create_link(fmt::format("port{}", port_class), bandwidth);
      // Every route begins with one local or NIC port outward.
      const int kind = ports_->kind(port);
      link->set_latency(kind == 0 || kind == 2 ? 1.0 : 0.0);
    }
    result.emplace_back(link);
  }
  return result;
}

SimGridPlatform::SimGridPlatform(const Cluster& cluster, const Ports& ports, const Traffic& traffic,
                                 const Folding& folding, double byte_scale)
    : ports_(&ports), folding_(&folding), byte_scale_(byte_scale), links_(folding.class_bandwidth.size(), nullptr) {
  for (const int replica : folding.representatives) {
    for (const Flow& flow : traffic.replicas[static_cast<std::size_t>(replica)]) {
      const Route route = ports.route(flow.from, flow.to);
      if (route.hops == 0) continue;
      ends_[{flow.from, route.plane}].out.assign(route.out().begin(), route.out().end());
      ends_[{flow.to, route.plane}].in.assign(route.in().begin(), route.in().end());
    }
  }
  sg::NetZone* zone = sg::create_star_zone("cluster");
  zone->get_network_model()->set_lat_factor_cb([&cluster](double, const sg::Host* from, const sg::Host* to,
                                                          const std::vector<sg::Link*>&,
                                                          const std::unordered_set<sg::NetZone*>&) {
    return cluster.path(device_of(*from), device_of(*to)).latency.value();
  });
  for (auto& [key, end] : ends_) {
    const auto& [device, plane] = key;
    end.host = zone->create_host(fmt::format("{}.{}", device.value, static_cast<int>(plane)), 1.0);
    // NOLINTNEXTLINE(performance-no-int-to-ptr): the number travels with the host
    end.host->set_data(reinterpret_cast<void*>(static_cast<std::intptr_t>(device.value)));
    zone->add_route(end.host->get_netpoint(), nullptr, nullptr, nullptr, links(*zone, end.out), false);
    zone->add_route(nullptr, end.host->get_netpoint(), nullptr, nullptr, links(*zone, end.in), false);
  }
  zone->seal();
}

std::pair<sg::Host*, sg::Host*> SimGridPlatform::ends(const Flow& flow) const {
  const Plane plane = ports_->route(flow.from, flow.to).plane;
  return {ends_.at({flow.from, plane}).host, ends_.at({flow.to, plane}).host};
}

}  // namespace stagecraft
