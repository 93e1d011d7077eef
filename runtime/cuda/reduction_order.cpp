#include "runtime/cuda/reduction_order.hpp"

#include <algorithm>
#include <set>
#include <tuple>

#include "runtime/cuda/module.hpp"
#include "runtime/worker_grid.hpp"

namespace stagecraft::cuda {
namespace {

// Each has a whole GPU, and none that of another.
bool on_own_gpus(const Plan& plan, const std::vector<int>& members) {
  std::set<std::pair<int, int>> gpus;  // node, GPU
  for (const int worker : members) {
    const int row = worker / plan.ranks(), rank = worker % plan.ranks();
    const DeviceId device = plan.devices[static_cast<std::size_t>(row)][static_cast<std::size_t>(rank)];
    const DevicePlace place = device_place(plan, row, rank);
    const int node = plan.cluster.devices[static_cast<std::size_t>(device.value)].node;
    if (!place.slices.empty() || !gpus.emplace(node, place.gpu).second) return false;
  }
  return true;
}

class Order {
 public:
  Order(const Plan& plan, const LoweredSchedule& schedule, const RankLayout& layout, int worker, bool nccl)
      : plan_(plan),
        placement_(plan.schedule),
        layout_(layout),
        place_(worker_place(plan, worker)),
        actions_(schedule.ranks[static_cast<std::size_t>(worker % plan.ranks())]),
        nccl_(nccl) {}

  std::vector<Reduction> run() {
    for (std::size_t i = 0; i < actions_.size(); ++i) {
      if (actions_[i].kind == ActionKind::reduce_grad) add_gradients(i);
      if (actions_[i].kind == ActionKind::reduce_tied) add_table(i);
    }
    std::stable_sort(order_.begin(), order_.end(),
                     [&](const Reduction& a, const Reduction& b) { return key(a) < key(b); });
    return std::move(order_);
  }

 private:
  // Early ones by computation and from the last layers on; the others in the order of Worker::finish_gradients.
  using Key = std::tuple<int, std::int64_t, std::int64_t, std::int64_t>;
  Key key(const Reduction& r) const {
    const Action& action = actions_[r.action];
    const auto backwards = -static_cast<std::int64_t>(r.bucket);
    if (r.during) return {0, static_cast<std::int64_t>(*r.during), backwards, 0};
    return {1, static_cast<std::int64_t>(action.kind), action.stage.value, backwards};
  }

  static bool makes_gradient(const Action& action) {
    return action.kind == ActionKind::backward || action.kind == ActionKind::backward_weight;
  }

  const RankLayout::Stage& stage(StageId id) const {
    return *std::find_if(layout_.stages.begin(), layout_.stages.end(),
                         [&](const RankLayout::Stage& s) { return s.number == id.value; });
  }

  static bool has_table(const StageLayout& layout, const Bucket& bucket) {
    const ParameterEntry* const table = token_table_of(layout);
    return table != nullptr && table->offset >= bucket.offset && table->offset < bucket.offset + bucket.elements;
  }

  // Another stage adds to the table as well.
  bool is_shared_table(const RankLayout::Stage& at, const Bucket& bucket) const {
    const bool whole = at.spec.has_embedding() && at.spec.has_head();
    return at.spec.transformer.tied_head && !whole && has_table(at.layout, bucket);
  }

  void add_gradients(std::size_t index) {
    const RankLayout::Stage& at = stage(actions_[index].stage);
    std::vector<int> members;
    for (int replica = 0; replica < plan_.replicas(); ++replica) {
      for (const RankId rank : placement_.ranks(actions_[index].stage)) {
        members.push_back(worker_number(plan_, {replica, place_.shard, rank.value}));
      }
    }
    const bool over_nccl = nccl_ && on_own_gpus(plan_, members);
    // Shards exchange what they compute, which sums beside it would hold up.
    const bool early = over_nccl && plan_.shards() == 1 && !placement_.is_shared(actions_[index].stage);
    const auto last = std::find_if(actions_.rbegin(), actions_.rend(), [&](const Action& action) {
      return makes_gradient(action) && action.stage == actions_[index].stage;
    });
    const auto during = static_cast<std::size_t>(actions_.rend() - last) - 1;
    for (std::size_t b = 0; b < at.layout.buckets.size(); ++b) {
      Reduction& reduction = order_.emplace_back(Reduction{index, members, over_nccl, b, {}});
      if (early && !is_shared_table(at, at.layout.buckets[b])) reduction.during = during;
    }
  }

  void add_table(std::size_t index) {
    const auto worker_of = [&](RankId rank) {
      return worker_number(plan_, {place_.replica, place_.shard, rank.value});
    };
    const std::vector<int> ends{worker_of(plan_.stages.front().rank), worker_of(plan_.stages.back().rank)};
    const StageLayout& layout = stage(actions_[index].stage).layout;
    for (std::size_t b = 0; b < layout.buckets.size(); ++b) {
      if (has_table(layout, layout.buckets[b]))
        order_.push_back({index, ends, nccl_ && on_own_gpus(plan_, ends), b, {}});
    }
  }

  const Plan& plan_;
  Placement placement_;
  const RankLayout& layout_;
  WorkerPlace place_;
  const std::vector<Action>& actions_;
  bool nccl_;
  std::vector<Reduction> order_;
};

}  // namespace

std::vector<Reduction> reduction_order(const Plan& plan, const LoweredSchedule& schedule, const RankLayout& layout,
                                       int worker, bool nccl) {
  return Order(plan, schedule, layout, worker, nccl).run();
}

}  // namespace stagecraft::cuda
