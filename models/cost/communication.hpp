// Closed forms for messages and collectives among devices, each alone on its links.
//
// The alpha-beta model of Hockney 1994: a message of b bytes takes alpha + b / B, and a full-duplex port sends and
// receives at the same time. The arithmetic of reductions is not counted. `link` is the path between neighbours (the
// slowest one where they differ), n the number of participants; with one participant every collective takes no time.
// Derivations: docs/cost_model.md. REQUIRES for all: n > 0, a bandwidth above zero, bytes not negative.
#pragma once

#include <span>

#include "models/cluster/cluster.hpp"
#include "models/units.hpp"

namespace stagecraft {

// alpha + b / B.
Seconds point_to_point_time(const Link& link, Bytes bytes);

// The textbooks' T_comm = N * P / B: n workers, each sending `parameters` bytes over one shared medium; no latency.
Seconds naive_all_reduce_time(int n, Bytes parameters, BytesPerSecond bandwidth);

// Each ends with its 1/n of the sum of n vectors of b bytes, by a ring: (n-1) (alpha + b / (n B)).
// Thakur, Rabenseifner, Gropp 2005, section 4.
Seconds ring_reduce_scatter_time(const Link& link, int n, Bytes bytes);

// Each ends with all n parts of together b bytes, by a ring: (n-1) (alpha + b / (n B)). Thakur et al. 2005, section 4.
Seconds ring_all_gather_time(const Link& link, int n, Bytes bytes);

// Reduce-scatter, then all-gather: 2 (n-1) (alpha + b / (n B)). Patarasu and Yuan 2009; bandwidth-optimal.
Seconds ring_all_reduce_time(const Link& link, int n, Bytes bytes);

// Plain binomial tree, whole messages: a reduction to the root and a broadcast, 2 ceil(log2 n) (alpha + b / B).
// Thakur et al. 2005, section 4.
Seconds tree_all_reduce_time(const Link& link, int n, Bytes bytes);

// Two complementary binary trees, each carrying half of the bytes in many small pieces (Sanders, Speck and Traff 2009;
// NCCL's tree): 2 ceil(log2 n) alpha + 2 b / B, the limit of small pieces.
Seconds double_tree_all_reduce_time(const Link& link, int n, Bytes bytes);

// Recursive halving, then doubling (Rabenseifner 2004): 2 log2(n) alpha + 2 (n-1)/n b / B. Where n is no power of two,
// the excess ranks fold into others before and after: another 2 (alpha + b / B), with the largest power of two below n.
Seconds halving_doubling_all_reduce_time(const Link& link, int n, Bytes bytes);

// `nodes` nodes of `per_node` devices: reduce-scatter inside the nodes, a ring between the nodes of each device's share
// of b / per_node bytes, all-gather inside. `network` is what one device has between nodes: of a shared NIC, its share.
Seconds hierarchical_all_reduce_time(const Link& local, int per_node, const Link& network, int nodes, Bytes bytes);

// Each sends 1/n of its b bytes to each, pairwise exchange: (n-1) (alpha + b / (n B)). Thakur et al. 2005, section 4.
Seconds all_to_all_time(const Link& link, int n, Bytes bytes);

// n workers push b bytes of gradients to `servers` servers, each holding an equal part, and pull b bytes of weights:
// 2 (alpha + b / B * max(1, n / servers)): the busier of a worker's port and a server's. Li et al. 2014.
// REQUIRES: servers > 0.
Seconds parameter_server_time(const Link& link, int n, int servers, Bytes bytes);

// One exchange of b bytes with each of k neighbours, all at once through one port: alpha + k b / B. Lian et al. 2017.
// REQUIRES: neighbours >= 0; with none it takes no time.
Seconds gossip_time(const Link& link, int neighbours, Bytes bytes);

// All-reduce among devices of a cluster: a ring over all of them, in node order, at its slowest hop; or hierarchical,
// where they fill several nodes with equal numbers above one; the faster of the two. Devices that share a NIC or an
// uplink share its bandwidth in the hierarchical form. Other groups that reduce at the same time are not seen.
// REQUIRES: at least one device, all different and existing.
Seconds all_reduce_time(const Cluster& cluster, std::span<const DeviceId> devices, Bytes bytes);

}  // namespace stagecraft
