#include "runtime/cuda/updater.hpp"

#include "kernels/cuda/error.hpp"

namespace stagecraft::cuda {
namespace {

namespace kernels = stagecraft::kernels::cuda;

// Micro-batches touch only some of its rows, or two layers add to it.
bool only_added_to(const Parameter& parameter) {
  return parameter.name == token_table || parameter.name == "embedding.positions" ||
         parameter.name == "head.projection.weight";
}

}  // namespace

Updater::Updater(const RankLayout& layout, std::byte* arena, int replica, Optimizer optimizer,
                 const OptimizerOptions& options, cudaStream_t stream)
    : layout_(layout),
      arena_(arena),
      replica_(replica),
      optimizer_(optimizer),
      options_(options),
      stream_(stream),
      scalars_(reinterpret_cast<Scalars*>(arena + layout.scalars)),
      norm_workspace_(reinterpret_cast<double*>(arena + layout.scalars + 1024)) {
  static_assert(sizeof(Scalars) <= 1024);
  host_[0] = Scalars{};
  for (const RankLayout::Stage& stage : layout.stages) {
    const auto decay = [&](const ParameterEntry& entry) {
      return static_cast<float>(entry.parameter.decayed ? options.weight_decay : 0);
    };
    // Of the elements that the replica keeps, in a slab of parameters.
    const auto at = [](const ParameterEntry& entry, const KeptElements& kept) { return entry.offset + kept.first; };
    const auto master = [&](const ParameterEntry& entry, const KeptElements& kept) {
      return slab(stage.masters) + (stage.has_masters() ? kept.state : at(entry, kept));
    };
    const auto weight = [&](const ParameterEntry& entry, const KeptElements& kept) -> kernels::Bf16* {
      if (!stage.has_masters()) return nullptr;
      return reinterpret_cast<kernels::Bf16*>(arena + stage.weights) + at(entry, kept);
    };
    if (optimizer == Optimizer::adamw) {
      list_tensors<kernels::AdamWTensor>(stage, [&](const ParameterEntry& entry, const KeptElements& kept) {
        return kernels::AdamWTensor{master(entry, kept),
                                    slab(stage.states[0]) + kept.state,
                                    slab(stage.states[1]) + kept.state,
                                    slab(stage.gradients) + at(entry, kept),
                                    weight(entry, kept),
                                    kept.last - kept.first,
                                    decay(entry)};
      });
    } else {
      list_tensors<kernels::SgdTensor>(stage, [&](const ParameterEntry& entry, const KeptElements& kept) {
        return kernels::SgdTensor{master(entry, kept),
                                  slab(stage.states[0]) + kept.state,
                                  slab(stage.gradients) + at(entry, kept),
                                  weight(entry, kept),
                                  kept.last - kept.first,
                                  decay(entry)};
      });
    }
  }
}

template <class Record, class Fill>
void Updater::list_tensors(const RankLayout::Stage& stage, Fill&& fill) {
  static_assert(sizeof(Record) <= tensor_record_bytes);
  std::vector<Record> records;
  for (const ParameterEntry& entry : stage.layout.entries) {
    const KeptElements kept = kept_elements(stage.layout, entry, replica_);
    if (kept.first < kept.last) records.push_back(fill(entry, kept));
  }
  Tensors& tensors = tensors_[stage.number];
  tensors.stage = &stage;
  tensors.list = arena_ + layout_.tensors + stage.first_tensor * tensor_record_bytes;
  tensors.count = static_cast<std::int64_t>(records.size());
  tensors.blocks = kernels::assign_blocks(std::span(records));
  STAGECRAFT_CUDA_CHECK(
      cudaMemcpyAsync(tensors.list, records.data(), records.size() * sizeof(Record), cudaMemcpyHostToDevice, stream_));
  STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(stream_));
}

void Updater::enqueue_squared_norm() {
  auto accumulate = kernels::Accumulate::no;
  const auto add = [&](const RankLayout::Stage& stage, std::int64_t first, std::int64_t count) {
    kernels::squared_norm(&scalars_->squared_norm, slab(stage.gradients) + first, count, norm_workspace_, accumulate,
                          stream_);
    accumulate = kernels::Accumulate::yes;
  };
  host_[0].squared_norm = 0;
  for (const RankLayout::Stage& stage : layout_.stages) {
    if (!stage.counted) continue;
    const StageLayout& layout = stage.layout;
    if (stage.spec.shard.index > 0) {
      // What all shards hold alike counts on the first.
      const auto is_split = [](const Parameter& parameter) { return parameter.split != Split::none; };
      for (const ElementRange& range : ranges_of(layout, is_split)) add(stage, range.first, range.last - range.first);
      continue;
    }
    if (!layout.buckets.front().is_sharded()) {
      add(stage, 0, layout.owned_elements);
      continue;
    }
    for (const Bucket& bucket : layout.buckets) {
      if (bucket.offset < layout.owned_elements) add(stage, bucket.offset + replica_ * bucket.share, bucket.share);
    }
  }
  if (accumulate == kernels::Accumulate::no) return;
  STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(&host_[0].squared_norm, &scalars_->squared_norm, sizeof(double),
                                        cudaMemcpyDeviceToHost, stream_));
}

void Updater::step(int stage, double rate, std::int64_t step, double gradient_scale) {
  const Tensors& tensors = tensors_.at(stage);
  const stagecraft::kernels::AdamW adamw{static_cast<float>(rate), static_cast<float>(options_.beta1),
                                         static_cast<float>(options_.beta2), static_cast<float>(options_.epsilon)};
  // The stages of a rank take the same values.
  host_[0].adamw = kernels::adamw_step_values(adamw, step);
  host_[0].learning_rate = static_cast<float>(rate);
  host_[0].gradient_scale = static_cast<float>(gradient_scale);
  STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(scalars_, host_.data(), sizeof(Scalars), cudaMemcpyHostToDevice, stream_));
  if (optimizer_ == Optimizer::adamw) {
    kernels::adamw_step(reinterpret_cast<const kernels::AdamWTensor*>(tensors.list), tensors.count, tensors.blocks,
                        &scalars_->adamw, &scalars_->gradient_scale, adamw, stream_);
  } else {
    kernels::sgd_step(reinterpret_cast<const kernels::SgdTensor*>(tensors.list), tensors.count, tensors.blocks,
                      &scalars_->learning_rate, &scalars_->gradient_scale, static_cast<float>(options_.momentum),
                      stream_);
  }
  for (const ParameterEntry& entry : tensors.stage->layout.entries) {
    if (!only_added_to(entry.parameter)) continue;
    STAGECRAFT_CUDA_CHECK(cudaMemsetAsync(slab(tensors.stage->gradients) + entry.offset, 0,
                                          static_cast<std::size_t>(entry.elements) * sizeof(float), stream_));
  }
}

}  // namespace stagecraft::cuda
