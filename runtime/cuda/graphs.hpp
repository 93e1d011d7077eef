// Work that repeats, captured into CUDA graphs: launched whole, an action costs the host a few microseconds, and its
// kernels follow each other faster.
#pragma once

#include <cuda_runtime_api.h>

#include <compare>
#include <map>
#include <memory>
#include <type_traits>

#include "kernels/cuda/error.hpp"
#include "kernels/cuda/memset_nodes.hpp"
#include "models/schedule/schedule.hpp"
#include "runtime/cuda/layout.hpp"
#include "runtime/cuda/messages.hpp"

namespace stagecraft::cuda {

// What distinguishes two actions of a rank: everything that fixes an address.
struct GraphKey {
  ActionKind kind = ActionKind::forward;
  int stage = 0;
  Place place;
  LayerSpan layers;
  Operands operands;
  auto operator<=>(const GraphKey&) const = default;
};

class Graphs {
 public:
  // Enqueues on `stream` what `enqueue()` enqueues there. The first time it is captured.
  template <class Enqueue>
  void launch(const GraphKey& key, cudaStream_t stream, Enqueue&& enqueue) {
    auto found = graphs_.find(key);
    if (found == graphs_.end()) {
      STAGECRAFT_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
      enqueue();
      cudaGraph_t raw = nullptr;
      STAGECRAFT_CUDA_CHECK(cudaStreamEndCapture(stream, &raw));
      const std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, Destroy> graph(raw);
      kernels::cuda::replace_memset_nodes(graph.get());
      cudaGraphExec_t executable = nullptr;
      STAGECRAFT_CUDA_CHECK(cudaGraphInstantiate(&executable, raw, 0));
      found = graphs_.emplace(key, executable).first;
    }
    STAGECRAFT_CUDA_CHECK(cudaGraphLaunch(found->second.get(), stream));
  }

  void clear() { graphs_.clear(); }

 private:
  struct Destroy {
    void operator()(cudaGraph_t graph) const { static_cast<void>(cudaGraphDestroy(graph)); }
    void operator()(cudaGraphExec_t graph) const { static_cast<void>(cudaGraphExecDestroy(graph)); }
  };
  std::map<GraphKey, std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, Destroy>> graphs_;
};

}  // namespace stagecraft::cuda
