// A named range on the timeline of NVIDIA's tools, for as long as the object lives. Costs nothing without a tool.
#pragma once

#include <nvtx3/nvToolsExt.h>

#include <string>

namespace stagecraft::cuda {

class Range {
 public:
  explicit Range(const std::string& name) { nvtxRangePushA(name.c_str()); }
  ~Range() { nvtxRangePop(); }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

}  // namespace stagecraft::cuda
