#include <vector>

#include "kernels/cuda/for_each.cuh"
#include "kernels/cuda/memset_nodes.hpp"

namespace stagecraft::kernels::cuda {
namespace {

using Byte = unsigned char;

// Byte i becomes byte i % 4 of `pattern`.
struct Fill {
  Byte* to;
  unsigned pattern;
  template <int n>
  __device__ void operator()(Index i, Constant<n>) const {
    if constexpr (n == 16) {
      *reinterpret_cast<uint4*>(to + i) = {pattern, pattern, pattern, pattern};
    } else {
      to[i] = static_cast<Byte>(pattern >> (i % 4 * 8));
    }
  }
};

// Four bytes of what a memset repeats.
unsigned pattern_of(const cudaMemsetParams& memset) {
  switch (memset.elementSize) {
    case 1:
      return (memset.value & 0xffU) * 0x01010101U;
    case 2:
      return (memset.value & 0xffffU) * 0x00010001U;
    default:
      return memset.value;
  }
}

cudaGraphNode_t add_fill(cudaGraph_t graph, const std::vector<cudaGraphNode_t>& after, const cudaMemsetParams& memset) {
  constexpr int threads = 256;
  auto bytes = static_cast<Index>(memset.width * memset.elementSize);
  Fill fill{static_cast<Byte*>(memset.dst), pattern_of(memset)};
  const bool aligned = reinterpret_cast<std::uintptr_t>(memset.dst) % 16 == 0;
  void* arguments[] = {&bytes, &fill};
  cudaKernelNodeParams kernel{};
  kernel.func =
      aligned ? reinterpret_cast<void*>(for_each_kernel<16, Fill>) : reinterpret_cast<void*>(for_each_kernel<1, Fill>);
  kernel.gridDim = dim3(blocks_for(bytes, threads * (aligned ? 16 : 1)));
  kernel.blockDim = dim3(threads);
  kernel.kernelParams = arguments;
  cudaGraphNode_t node = nullptr;
  STAGECRAFT_CUDA_CHECK(cudaGraphAddKernelNode(&node, graph, after.data(), after.size(), &kernel));
  return node;
}

// What comes right before a node, or right after it.
template <class Query>
std::vector<cudaGraphNode_t> beside(cudaGraphNode_t node, Query query) {
  std::size_t count = 0;
  STAGECRAFT_CUDA_CHECK(query(node, nullptr, nullptr, &count));
  std::vector<cudaGraphNode_t> nodes(count);
  std::vector<cudaGraphEdgeData> edges(count);
  if (count > 0) STAGECRAFT_CUDA_CHECK(query(node, nodes.data(), edges.data(), &count));
  return nodes;
}

// The edges to and from a memset are whole: nothing starts before it has ended.
void replace(cudaGraph_t graph, cudaGraphNode_t old) {
  cudaMemsetParams memset{};
  STAGECRAFT_CUDA_CHECK(cudaGraphMemsetNodeGetParams(old, &memset));
  if (memset.height > 1 || memset.width == 0) return;
  const cudaGraphNode_t fill = add_fill(graph, beside(old, cudaGraphNodeGetDependencies), memset);
  for (const cudaGraphNode_t next : beside(old, cudaGraphNodeGetDependentNodes)) {
    STAGECRAFT_CUDA_CHECK(cudaGraphAddDependencies(graph, &fill, &next, nullptr, 1));
  }
  STAGECRAFT_CUDA_CHECK(cudaGraphDestroyNode(old));
}

}  // namespace

void replace_memset_nodes(cudaGraph_t graph) {
  std::size_t count = 0;
  STAGECRAFT_CUDA_CHECK(cudaGraphGetNodes(graph, nullptr, &count));
  std::vector<cudaGraphNode_t> nodes(count);
  STAGECRAFT_CUDA_CHECK(cudaGraphGetNodes(graph, nodes.data(), &count));
  for (const cudaGraphNode_t node : nodes) {
    cudaGraphNodeType type{};
    STAGECRAFT_CUDA_CHECK(cudaGraphNodeGetType(node, &type));
    if (type == cudaGraphNodeTypeMemset) replace(graph, node);
  }
}

}  // namespace stagecraft::kernels::cuda
