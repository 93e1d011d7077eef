#include "sim/folding.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <utility>

namespace stagecraft {
namespace {

// Numbers signatures in the order of their first appearance.
template <class Value>
class Classes {
 public:
  int number(const std::vector<Value>& signature) {
    return numbers_.try_emplace(signature, static_cast<int>(numbers_.size())).first->second;
  }
  std::size_t size() const { return numbers_.size(); }

 private:
  std::map<std::vector<Value>, int> numbers_;
};

// Many slots have the same ends in every replica: those of a reduction's phases, of messages between stages on the same
// ranks. They meet the same ports, so one of them, a lane, speaks for all when ports and replicas are told apart.
class Refinement {
 public:
  Refinement(const Traffic& traffic, const Ports& ports, const Cluster& cluster)
      : replica_class_(traffic.replicas.size(), 0), port_class_(ports.size(), -1), crossing_(ports.size()) {
    const std::vector<std::size_t> lanes = find_lanes(traffic);
    lanes_ = lanes.size();
    for (const auto& flows : traffic.replicas) {
      for (const std::size_t slot : lanes) add_route(ports.route(flows[slot].from, flows[slot].to));
    }
    tell_replicas_apart(traffic, lanes, cluster);
    Classes<double> classes;
    for (std::size_t port = 0; port < ports.size(); ++port) {
      if (crossing_[port].empty()) continue;
      used_.push_back(static_cast<int>(port));
      // A flow goes through one port of a kind at most, so it never meets a class twice.
      const PortId id{static_cast<std::int32_t>(port)};
      port_class_[port] = classes.number({ports.bandwidth(id).value(), static_cast<double>(ports.kind(id))});
    }
    port_classes_ = classes.size();
  }

  void refine() {
    for (std::size_t before = 0; before != port_classes_ + replica_classes_;) {
      before = port_classes_ + replica_classes_;
      refine_ports();
      refine_replicas();
    }
  }

  // Empty representatives: no folding.
  Folding result(const Ports& ports) const {
    Folding folding;
    folding.representative_of = replica_class_;
    folding.port_class = port_class_;
    folding.representatives.assign(replica_classes_, -1);
    for (std::size_t d = replica_class_.size(); d > 0; --d) {
      folding.representatives[index(replica_class_[d - 1])] = static_cast<int>(d - 1);
    }
    folding.class_bandwidth.assign(port_classes_, BytesPerSecond(0));
    for (const int port : used_) {
      const int share = share_of(port);
      if (share == 0) return {};
      folding.class_bandwidth[index(port_class_[index(port)])] = ports.bandwidth(PortId{port}) / share;
    }
    return folding;
  }

 private:
  static std::size_t index(int value) { return static_cast<std::size_t>(value); }

  // The first slot of each lane.
  static std::vector<std::size_t> find_lanes(const Traffic& traffic) {
    std::vector<std::size_t> lanes;
    Classes<std::pair<DeviceId, DeviceId>> known;
    std::vector<std::pair<DeviceId, DeviceId>> ends(traffic.replicas.size());
    for (std::size_t slot = 0; slot < traffic.replicas.front().size(); ++slot) {
      for (std::size_t d = 0; d < ends.size(); ++d) {
        ends[d] = {traffic.replicas[d][slot].from, traffic.replicas[d][slot].to};
      }
      if (index(known.number(ends)) == lanes.size()) lanes.push_back(slot);
    }
    return lanes;
  }

  void add_route(const Route& route) {
    for (const PortId port : route.all()) crossing_[index(port.value)].push_back(static_cast<int>(routes_.size()));
    routes_.push_back(route);
  }

  // By what they send and its latencies, which refining does not change.
  void tell_replicas_apart(const Traffic& traffic, const std::vector<std::size_t>& lanes, const Cluster& cluster) {
    Classes<double> classes;
    std::vector<double> signature;
    for (std::size_t d = 0; d < traffic.replicas.size(); ++d) {
      signature.clear();
      for (const Flow& flow : traffic.replicas[d]) {
        signature.insert(signature.end(), {static_cast<double>(flow.steps), flow.bytes.value()});
      }
      for (const std::size_t slot : lanes) {
        const Flow& flow = traffic.replicas[d][slot];
        signature.push_back(flow.from == flow.to ? 0 : cluster.path(flow.from, flow.to).latency.value());
      }
      replica_class_[d] = classes.number(signature);
    }
    replica_classes_ = classes.size();
  }

  // Class of the replica and lane of each flow through a port, ascending.
  std::vector<int> flows_through(int port) const {
    const auto lanes = static_cast<int>(lanes_);
    std::vector<int> flows;
    flows.reserve(crossing_[index(port)].size() + 1);
    for (const int route : crossing_[index(port)]) {
      flows.push_back(replica_class_[index(route / lanes)] * lanes + route % lanes);
    }
    std::sort(flows.begin(), flows.end());
    return flows;
  }

  void refine_ports() {
    Classes<int> classes;
    std::vector<int> refined(port_class_);
    for (const int port : used_) {
      std::vector<int> signature = flows_through(port);
      signature.push_back(port_class_[index(port)]);
      refined[index(port)] = classes.number(signature);
    }
    port_class_ = std::move(refined);
    port_classes_ = classes.size();
  }

  void refine_replicas() {
    Classes<int> classes;
    std::vector<int> signature;
    for (std::size_t d = 0; d < replica_class_.size(); ++d) {
      signature.assign(1, replica_class_[d]);
      for (std::size_t lane = 0; lane < lanes_; ++lane) {
        for (const PortId port : routes_[d * lanes_ + lane].all()) signature.push_back(port_class_[index(port.value)]);
      }
      replica_class_[d] = classes.number(signature);
    }
    replica_classes_ = classes.size();
  }

  // How many flows of this port stand behind one of the representative's: the same for every class of flows, or else 0.
  int share_of(int port) const {
    const std::vector<int> flows = flows_through(port);
    std::ptrdiff_t share = 0;
    for (auto first = flows.begin(); first != flows.end();) {
      const auto last = std::upper_bound(first, flows.end(), *first);
      if (share != 0 && last - first != share) return 0;
      share = last - first;
      first = last;
    }
    return static_cast<int>(share);
  }

  std::vector<int> replica_class_, port_class_;
  std::size_t replica_classes_ = 1, port_classes_ = 0;
  std::size_t lanes_ = 0;
  std::vector<Route> routes_;               // by replica, lane
  std::vector<std::vector<int>> crossing_;  // by port: indices of routes
  std::vector<int> used_;                   // ports that anything goes through, ascending
};

}  // namespace

Folding unfolded(const Traffic& traffic, const Ports& ports) {
  Folding folding;
  folding.representatives.resize(traffic.replicas.size());
  std::iota(folding.representatives.begin(), folding.representatives.end(), 0);
  folding.representative_of = folding.representatives;
  folding.port_class.resize(ports.size());
  std::iota(folding.port_class.begin(), folding.port_class.end(), 0);
  for (const int port : folding.port_class) folding.class_bandwidth.push_back(ports.bandwidth(PortId{port}));
  return folding;
}

Folding fold(const Traffic& traffic, const Ports& ports, const Cluster& cluster) {
  Refinement refinement(traffic, ports, cluster);
  refinement.refine();
  Folding folding = refinement.result(ports);
  return folding.representatives.empty() ? unfolded(traffic, ports) : folding;
}

}  // namespace stagecraft
