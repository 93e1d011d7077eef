// The driver launches a graph that is one chain of kernels in the same few microseconds whatever its length. Memset
// nodes, which cuDNN and cuBLASLt leave in what is captured from them, end that: every node of such a graph then costs
// the host a good part of a microsecond (H100, driver 580: a chain of 200 takes 3 us, with 20 memsets among them 39
// us).
#pragma once

#include <cuda_runtime_api.h>

namespace stagecraft::kernels::cuda {

// Puts a kernel of the current context that stores the same bytes in the place of each memset node of one row.
void replace_memset_nodes(cudaGraph_t graph);

}  // namespace stagecraft::kernels::cuda
