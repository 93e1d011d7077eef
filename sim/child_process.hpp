// Runs work in a forked child, for libraries that keep their state in globals.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

namespace stagecraft {

// Memory that parent and child see alike, zeroed. Throws internal when there is none.
class SharedMemory {
 public:
  explicit SharedMemory(std::size_t bytes);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  std::byte* data() const { return data_; }

 private:
  std::byte* data_;
  std::size_t bytes_;
};

// Runs `work` in a copy of this process and waits for it; only what it wrote to SharedMemory remains. An Error that
// leaves it is thrown here, with its kind; a child that dies is an internal error that names `what`.
void run_in_child(const char* what, const std::function<void()>& work);

}  // namespace stagecraft
