// Runs work in forked children, for libraries that keep their state in globals.
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

// Runs work(0) ... work(count - 1), each in a copy of this process, and waits for all: as many at a time as the machine
// has cores. Only what they wrote to SharedMemory remains. An Error that leaves one is thrown here, with its kind; a
// child that dies is an internal error that names `what`. Of several errors the one of the lowest number is thrown, and
// no further work is begun once one is known. Children die with the calling thread.
void run_in_children(const char* what, std::size_t count, const std::function<void(std::size_t)>& work);

}  // namespace stagecraft
