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

Updater::Updater(const RankLayout& layout, std::byte* arena, Optimizer optimizer, const OptimizerOptions& options,
                 cudaStream_t stream)
    : layout_(layout),
      arena_(arena),
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
    const auto weight = [&](const ParameterEntry& entry) -> kernels::Bf16* {
      if (stage.spec.precision != DataType::bf16) return nullptr;
      return reinterpret_cast<kernels::Bf16*>(arena + stage.weights) + entry.offset;
    };
    if (optimizer == Optimizer::adamw) {
      list_tensors<kernels::AdamWTensor>(stage, [&](const ParameterEntry& entry) {
        return kernels::AdamWTensor{slab(stage.masters) + entry.offset,
                                    slab(stage.states[0]) + entry.offset,
                                    slab(stage.states[1]) + entry.offset,
                                    slab(stage.gradients) + entry.offset,
                                    weight(entry),
                                    entry.elements,
                                    decay(entry)};
      });
    } else {
      list_tensors<kernels::SgdTensor>(stage, [&](const ParameterEntry& entry) {
        return kernels::SgdTensor{slab(stage.masters) + entry.offset,
                                  slab(stage.states[0]) + entry.offset,
                                  slab(stage.gradients) + entry.offset,
                                  weight(entry),
                                  entry.elements,
                                  decay(entry)};
      });
    }
  }
}

template <class Record, class Fill>
void Updater::list_tensors(const RankLayout::Stage& stage, Fill&& fill) {
  static_assert(sizeof(Record) <= tensor_record_bytes);
  std::vector<Record> records;
  for (const ParameterEntry& entry : stage.layout.entries) records.push_back(fill(entry));
  Tensors& tensors = tensors_[stage.number];
  tensors.stage = &stage;
  tensors.list = arena_ + layout_.tensors + stage.first_tensor * tensor_record_bytes;
  tensors.count = static_cast<std::int64_t>(records.size());
  tensors.blocks = kernels::assign_blocks(std::span(records));
  STAGECRAFT_CUDA_CHECK(
      cudaMemcpyAsync(tensors.list, records.data(), records.size() * sizeof(Record), cudaMemcpyHostToDevice, stream_));
  STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(stream_));
}

double Updater::squared_gradient_norm() {
  auto accumulate = kernels::Accumulate::no;
  for (const RankLayout::Stage& stage : layout_.stages) {
    if (!stage.counted) continue;
    kernels::squared_norm(&scalars_->squared_norm, slab(stage.gradients), stage.layout.owned_elements, norm_workspace_,
                          accumulate, stream_);
    accumulate = kernels::Accumulate::yes;
  }
  if (accumulate == kernels::Accumulate::no) return 0;
  STAGECRAFT_CUDA_CHECK(cudaMemcpyAsync(&host_[0].squared_norm, &scalars_->squared_norm, sizeof(double),
                                        cudaMemcpyDeviceToHost, stream_));
  STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(stream_));
  return host_[0].squared_norm;
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
