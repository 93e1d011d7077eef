// Lays out tensors in a slab, each at a cache line.
#pragma once

#include <cstdint>

namespace stagecraft::cpu {

class Carver {
 public:
  // The offset of the next `floats`.
  std::int64_t take(std::int64_t floats) {
    const std::int64_t offset = size_;
    size_ += (floats + 15) / 16 * 16;
    return offset;
  }
  std::int64_t size() const { return size_; }

 private:
  std::int64_t size_ = 0;
};

}  // namespace stagecraft::cpu
