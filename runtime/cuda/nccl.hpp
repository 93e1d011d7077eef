// Collectives and messages between GPUs, of one process or of several, over NCCL.
//
// Calls only enqueue on a stream. Nothing waits for ever: the host's own waits (for members that join, for connections
// that the first call makes, for a stream) end with an Error after the peer timeout or when the run ends elsewhere, and
// the destructor aborts what a stream still waits for. Builds without NCCL have nccl_available() false.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "runtime/transport.hpp"

struct ncclComm;

namespace stagecraft::cuda {

bool nccl_available();

// What is summed or moved.
enum class Element { fp32, bf16, byte };

// The workers of a group, each with a GPU of its own.
class Communicator {
 public:
  // Every member makes it, with the same list of workers, on the thread whose GPU is to be its; a worker that is in
  // several groups makes them in one order with all others. Waits for all members, no longer than `timeout`.
  // Throws kernels::cuda::Error, and what the transport throws. REQUIRES: nccl_available(); `members` holds this worker
  // once, and all members' GPUs differ; `transport` outlives it.
  Communicator(Transport& transport, std::vector<int> members, std::chrono::milliseconds timeout);
  // Ends what is still under way; other members' calls may then never end on their own.
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  const std::vector<int>& members() const { return members_; }
  int size() const { return static_cast<int>(members_.size()); }
  int index() const { return index_; }  // of this worker among the members

  // All members call these with equal sizes and in the same order. `data` lies on the GPU.
  void all_reduce(void* data, std::int64_t count, Element type, cudaStream_t stream);
  // data: (size, share) elements, which stay as they are; own: (share), becomes the sum over the members of row
  // `index`. It may be that row.
  void reduce_scatter(void* own, const void* data, std::int64_t share, Element type, cudaStream_t stream);
  // data: (size, share) elements; row i becomes member i's `own`, (share), which may be that row.
  void all_gather(void* data, const void* own, std::int64_t share, Element type, cudaStream_t stream);
  // A message from one member to another pairs with the receive that comes at the same place in the order of messages
  // between the two; until the other's call both streams wait. `peer`: an index.
  void send(const void* data, std::int64_t bytes, int peer, cudaStream_t stream);
  void receive(void* data, std::int64_t bytes, int peer, cudaStream_t stream);

  // Throws Error when NCCL has met a fault since, such as a lost connection.
  void check() const;
  // Waits until the stream is idle, as Communicators::wait_for does.
  void wait(cudaStream_t stream) const;

 private:
  // Waits until NCCL has done what it was told: a communicator that may be aborted works on a thread of its own.
  void settle(int status, const char* expression) const;

  Transport& transport_;
  std::vector<int> members_;
  std::chrono::milliseconds timeout_;
  int index_ = 0;
  ncclComm* communicator_ = nullptr;
};

// All that a worker is a member of.
class Communicators {
 public:
  // Makes one for each list of members, in the order of the set, which is the same for all workers. Errors as above.
  Communicators(Transport& transport, const std::set<std::vector<int>>& groups, std::chrono::milliseconds timeout);

  // Null when there is none with these members.
  Communicator* find(const std::vector<int>& members) const;
  // Waits until the stream is idle, as cudaStreamSynchronize does, but ends with an error when a communicator has met a
  // fault, the run ends elsewhere, or the timeout is over.
  void wait_for(cudaStream_t stream) const;
  // Ends what is under way.
  void abort() { all_.clear(); }

 private:
  Transport& transport_;
  std::chrono::milliseconds timeout_;
  std::vector<std::unique_ptr<Communicator>> all_;
};

// Leaves multicast over NVLink off unless the user asks for it: it has put whole hosts out of service. Call it before
// the first thread starts.
void set_nccl_defaults();

}  // namespace stagecraft::cuda
