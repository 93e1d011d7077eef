// One worker's memory: buffers that are counted, and recycled so that a step in full swing never calls malloc.
//
// A released buffer waits for the next request of its size and stays counted: peak_bytes() is what the worker holds.
// Used by one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace stagecraft {

class MemoryPool;

// Floats of a pool, returned to it on destruction. Must not outlive the pool.
class Buffer {
 public:
  Buffer() = default;
  ~Buffer() { release(); }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer taken(static_cast<Buffer&&>(other));
    swap(taken);
    return *this;
  }

  explicit operator bool() const { return data_ != nullptr; }
  float* data() const { return data_; }
  std::int64_t size() const { return size_; }  // floats
  std::span<float> span() const { return {data_, static_cast<std::size_t>(size_)}; }
  std::span<std::byte> bytes() const { return std::as_writable_bytes(span()); }
  void release();

 private:
  friend class MemoryPool;
  Buffer(MemoryPool* pool, float* data, std::int64_t size) : pool_(pool), data_(data), size_(size) {}
  void swap(Buffer& other) noexcept;

  MemoryPool* pool_ = nullptr;
  float* data_ = nullptr;
  std::int64_t size_ = 0;
};

class MemoryPool {
 public:
  MemoryPool() = default;
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  // `what` is for the message of the device error that is thrown when the machine has no such memory. Aligned to a
  // page, so that first use places it near the caller's core; contents mean nothing. REQUIRES: floats >= 0.
  Buffer allocate(std::int64_t floats, const char* what);
  Buffer allocate_zeroed(std::int64_t floats, const char* what);

  std::int64_t peak_bytes() const { return held_bytes_; }
  // How often the machine was asked; does not grow once every size was seen.
  std::int64_t allocations() const { return allocations_; }

 private:
  friend class Buffer;
  void recycle(float* data, std::int64_t size) { free_[size].push_back(data); }

  std::unordered_map<std::int64_t, std::vector<float*>> free_;  // by size
  std::int64_t held_bytes_ = 0;
  std::int64_t allocations_ = 0;
};

}  // namespace stagecraft
