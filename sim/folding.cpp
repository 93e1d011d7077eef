#include "sim/folding.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

namespace stagecraft {
namespace {

using Signature = std::vector<double>;

// Numbers signatures in the order of their first appearance.
class Classes {
 public:
  int number(Signature signature) {
    return numbers_.try_emplace(std::move(signature), static_cast<int>(numbers_.size())).first->second;
  }
  std::size_t size() const { return numbers_.size(); }

 private:
  std::map<Signature, int> numbers_;
};

class Refinement {
 public:
  Refinement(const Traffic& traffic, const Ports& ports, const Cluster& cluster)
      : traffic_(traffic), replica_class_(traffic.replicas.size(), 0), port_class_(ports.size(), -1) {
    find_routes(ports, cluster);
    Classes classes;
    for (const int port : used_) {
      // A flow goes through one port of a kind at most, so it never meets a class twice.
      port_class_[index(port)] =
          classes.number({ports.bandwidth(PortId{port}).value(), static_cast<double>(ports.kind(PortId{port}))});
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

  void find_routes(const Ports& ports, const Cluster& cluster) {
    crossing_.resize(ports.size());
    for (std::size_t d = 0; d < traffic_.replicas.size(); ++d) {
      for (std::size_t slot = 0; slot < traffic_.replicas[d].size(); ++slot) {
        const Flow& flow = traffic_.replicas[d][slot];
        routes_.push_back(ports.route(flow.from, flow.to));
        latencies_.push_back(flow.from == flow.to ? 0 : cluster.path(flow.from, flow.to).latency.value());
        for (const PortId port : routes_.back().all()) {
          if (crossing_[index(port.value)].empty()) used_.push_back(port.value);
          crossing_[index(port.value)].push_back({static_cast<int>(d), static_cast<int>(slot)});
        }
      }
    }
    std::sort(used_.begin(), used_.end());
  }

  // By class of the replica and slot: how many such flows go through a port.
  std::map<std::pair<int, int>, int> flows_through(int port) const {
    std::map<std::pair<int, int>, int> flows;
    for (const auto& [replica, slot] : crossing_[index(port)]) ++flows[{replica_class_[index(replica)], slot}];
    return flows;
  }

  void refine_ports() {
    Classes classes;
    std::vector<int> refined(port_class_);
    for (const int port : used_) {
      Signature signature{static_cast<double>(port_class_[index(port)])};
      for (const auto& [flow, count] : flows_through(port)) {
        signature.insert(signature.end(), {static_cast<double>(flow.first), static_cast<double>(flow.second),
                                           static_cast<double>(count)});
      }
      refined[index(port)] = classes.number(std::move(signature));
    }
    port_class_ = std::move(refined);
    port_classes_ = classes.size();
  }

  void refine_replicas() {
    Classes classes;
    std::size_t at = 0;
    for (std::size_t d = 0; d < traffic_.replicas.size(); ++d) {
      Signature signature{static_cast<double>(replica_class_[d])};
      for (const Flow& flow : traffic_.replicas[d]) {
        signature.insert(signature.end(), {static_cast<double>(flow.steps), flow.bytes.value(), latencies_[at]});
        for (const PortId port : routes_[at].all()) signature.push_back(port_class_[index(port.value)]);
        ++at;
      }
      replica_class_[d] = classes.number(std::move(signature));
    }
    replica_classes_ = classes.size();
  }

  // How many flows of this port stand behind one of the representative's: the same for every class of flows, or else 0.
  int share_of(int port) const {
    const auto flows = flows_through(port);
    const int share = flows.begin()->second;
    const bool alike = std::all_of(flows.begin(), flows.end(), [&](const auto& flow) { return flow.second == share; });
    return alike ? share : 0;
  }

  const Traffic& traffic_;
  std::vector<Route> routes_;                               // by replica, then slot
  std::vector<double> latencies_;                           // seconds, likewise
  std::vector<int> used_;                                   // ports that anything goes through, ascending
  std::vector<std::vector<std::pair<int, int>>> crossing_;  // by port: (replica, slot)
  std::vector<int> replica_class_, port_class_;
  std::size_t replica_classes_ = 1, port_classes_ = 0;
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
