#include "runtime/memory_pool.hpp"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <utility>

#include "models/error.hpp"
#include "models/units.hpp"

namespace stagecraft {
namespace {

constexpr std::int64_t alignment = 4096;

}  // namespace

void Buffer::release() {
  if (data_ != nullptr) pool_->recycle(data_, size_);
  pool_ = nullptr, data_ = nullptr, size_ = 0;
}

void Buffer::swap(Buffer& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
}

MemoryPool::~MemoryPool() {
  for (auto& [size, buffers] : free_) {
    for (float* data : buffers) std::free(data);
  }
}

Buffer MemoryPool::allocate(std::int64_t floats, const char* what) {
  assert(floats >= 0);
  if (floats == 0) return {};
  std::vector<float*>& waiting = free_[floats];
  if (!waiting.empty()) {
    float* data = waiting.back();
    waiting.pop_back();
    return {this, data, floats};
  }
  const std::int64_t bytes =
      (floats * static_cast<std::int64_t>(sizeof(float)) + alignment - 1) / alignment * alignment;
  void* data = std::aligned_alloc(alignment, static_cast<std::size_t>(bytes));
  if (data == nullptr) {
    throw device_error("no memory for {}: {} more were asked for, {} are held", what,
                       to_string(Bytes(static_cast<double>(bytes))),
                       to_string(Bytes(static_cast<double>(held_bytes_))));
  }
  held_bytes_ += bytes;
  ++allocations_;
  return {this, static_cast<float*>(data), floats};
}

Buffer MemoryPool::allocate_zeroed(std::int64_t floats, const char* what) {
  Buffer buffer = allocate(floats, what);
  std::fill_n(buffer.data(), floats, 0.0F);
  return buffer;
}

}  // namespace stagecraft
