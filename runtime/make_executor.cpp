#include "runtime/make_executor.hpp"

#include <utility>

#include "kernels/cpu/rope.hpp"
#include "runtime/cpu/rank_executor.hpp"
#include "runtime/cuda/layout.hpp"
#include "runtime/cuda/module.hpp"
#include "runtime/cuda/reduction_order.hpp"

namespace stagecraft {

std::unique_ptr<Executor> make_executor(const ExecutorContext& context) {
  if (context.options.backend == Backend::cpu) return std::make_unique<cpu::RankExecutor>(context);
  cuda::RankLayout layout = cuda::lay_out_rank(context.plan, context.schedule, context.place.rank, context.place.shard,
                                               context.options.deterministic);
  const Transformer& t = *context.plan.network.transformer;
  if (t.position == PositionKind::rotary) {
    layout.rope_values.resize(
        static_cast<std::size_t>(kernels::cpu::rope_table_floats(context.plan.batch.sequence, t.head_size)));
    kernels::cpu::rope_table(layout.rope_values.data(), context.plan.batch.sequence, t.head_size, t.rope_theta);
  }
  cuda::Module& module = cuda::load_module();
  layout.reductions =
      cuda::reduction_order(context.plan, context.schedule, layout, context.transport.worker(), module.has_nccl());
  return module.make_executor(
      context, std::move(layout),
      cuda::device_place(context.plan, device_row(context.plan, context.place), context.place.rank));
}

}  // namespace stagecraft
