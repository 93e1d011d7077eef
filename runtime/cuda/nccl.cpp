// The only file that knows NCCL. Without STAGECRAFT_WITH_NCCL it says so.
#include "runtime/cuda/nccl.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>

#include "kernels/cuda/error.hpp"

#ifdef STAGECRAFT_WITH_NCCL
#include <nccl.h>
#endif

namespace stagecraft::cuda {
namespace {

using Clock = std::chrono::steady_clock;

// Asks `done` until it says yes.
template <class Done>
void poll(Transport& transport, std::chrono::milliseconds timeout, Done&& done) {
  const auto start = Clock::now();
  while (!done()) {
    transport.check_running();
    const auto waited = Clock::now() - start;
    if (waited >= timeout) {
      throw kernels::cuda::Error(
          fmt::format("the GPUs of other ranks have not answered within {:.3g} s; has a process died?",
                      std::chrono::duration<double>(timeout).count()));
    }
    // A short wait is one for the host's own threads; a long one leaves the core to others.
    if (waited < std::chrono::microseconds(500)) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }
}

bool is_idle(cudaStream_t stream) {
  const cudaError_t status = cudaStreamQuery(stream);
  if (status != cudaErrorNotReady) STAGECRAFT_CUDA_CHECK(status);
  return status == cudaSuccess;
}

}  // namespace

Communicators::Communicators(Transport& transport, const std::set<std::vector<int>>& groups,
                             std::chrono::milliseconds timeout)
    : transport_(transport), timeout_(timeout) {
  for (const std::vector<int>& members : groups) {
    all_.push_back(std::make_unique<Communicator>(transport, members, timeout));
  }
}

Communicator* Communicators::find(const std::vector<int>& members) const {
  const auto found = std::find_if(all_.begin(), all_.end(), [&](const auto& c) { return c->members() == members; });
  return found == all_.end() ? nullptr : found->get();
}

void Communicators::wait_for(cudaStream_t stream) const {
  if (all_.empty()) return STAGECRAFT_CUDA_CHECK(cudaStreamSynchronize(stream));
  poll(transport_, timeout_, [&] {
    if (is_idle(stream)) return true;
    for (const auto& communicator : all_) communicator->check();
    return false;
  });
}

void Communicator::wait(cudaStream_t stream) const {
  poll(transport_, timeout_, [&] {
    if (is_idle(stream)) return true;
    check();
    return false;
  });
}

#ifdef STAGECRAFT_WITH_NCCL

namespace {

constexpr MessageTag control{Lane::control, 0, -1};

[[noreturn]] void fail(ncclResult_t status, const char* expression, ncclComm_t communicator) {
  // Names the call that failed underneath; may be empty.
  const std::string detail = ncclGetLastError(communicator);
  throw kernels::cuda::Error(std::string(expression) + ": " + ncclGetErrorString(status) +
                             (detail.empty() ? "" : ": " + detail));
}

ncclDataType_t type_of(Element element) {
  switch (element) {
    case Element::fp32:
      return ncclFloat32;
    case Element::bf16:
      return ncclBfloat16;
    case Element::byte:
      return ncclInt8;
  }
  return ncclInt8;
}

// The first member makes it up. Nobody joins before all are there, so that joining takes moments.
ncclUniqueId agree_on_id(Transport& transport, const std::vector<int>& members) {
  ncclUniqueId id{};
  const auto bytes = std::as_writable_bytes(std::span(&id, 1));
  if (transport.worker() != members.front()) {
    transport.send(members.front(), control, bytes.first(1));
    transport.receive(members.front(), control, bytes);
    return id;
  }
  const ncclResult_t status = ncclGetUniqueId(&id);
  if (status != ncclSuccess) fail(status, "ncclGetUniqueId(&id)", nullptr);
  for (const int member : members) {
    std::byte here{};
    if (member != transport.worker()) transport.receive(member, control, std::span(&here, 1));
  }
  for (const int member : members) {
    if (member != transport.worker()) transport.send(member, control, bytes);
  }
  return id;
}

}  // namespace

#define STAGECRAFT_NCCL(expression) settle(static_cast<int>(expression), #expression)

bool nccl_available() { return true; }

void set_nccl_defaults() { static_cast<void>(setenv("NCCL_NVLS_ENABLE", "0", 0)); }

Communicator::Communicator(Transport& transport, std::vector<int> members, std::chrono::milliseconds timeout)
    : transport_(transport), members_(std::move(members)), timeout_(timeout) {
  index_ = static_cast<int>(std::find(members_.begin(), members_.end(), transport.worker()) - members_.begin());
  const ncclUniqueId id = agree_on_id(transport, members_);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  try {
    STAGECRAFT_NCCL(ncclCommInitRankConfig(&communicator_, size(), id, index_, &config));
  } catch (...) {
    if (communicator_ != nullptr) static_cast<void>(ncclCommAbort(communicator_));
    throw;
  }
}

Communicator::~Communicator() { static_cast<void>(ncclCommAbort(communicator_)); }

void Communicator::settle(int status, const char* expression) const {
  auto result = static_cast<ncclResult_t>(status);
  if (result == ncclInProgress) {
    poll(transport_, timeout_, [&] {
      const ncclResult_t asked = ncclCommGetAsyncError(communicator_, &result);
      if (asked != ncclSuccess) fail(asked, expression, communicator_);
      return result != ncclInProgress;
    });
  }
  if (result != ncclSuccess) fail(result, expression, communicator_);
}

void Communicator::all_reduce(void* data, std::int64_t count, Element type, cudaStream_t stream) {
  STAGECRAFT_NCCL(
      ncclAllReduce(data, data, static_cast<std::size_t>(count), type_of(type), ncclSum, communicator_, stream));
}

void Communicator::reduce_scatter(void* own, const void* data, std::int64_t share, Element type, cudaStream_t stream) {
  STAGECRAFT_NCCL(
      ncclReduceScatter(data, own, static_cast<std::size_t>(share), type_of(type), ncclSum, communicator_, stream));
}

void Communicator::all_gather(void* data, const void* own, std::int64_t share, Element type, cudaStream_t stream) {
  STAGECRAFT_NCCL(ncclAllGather(own, data, static_cast<std::size_t>(share), type_of(type), communicator_, stream));
}

void Communicator::send(const void* data, std::int64_t bytes, int peer, cudaStream_t stream) {
  STAGECRAFT_NCCL(ncclSend(data, static_cast<std::size_t>(bytes), ncclInt8, peer, communicator_, stream));
}

void Communicator::receive(void* data, std::int64_t bytes, int peer, cudaStream_t stream) {
  STAGECRAFT_NCCL(ncclRecv(data, static_cast<std::size_t>(bytes), ncclInt8, peer, communicator_, stream));
}

void Communicator::check() const {
  ncclResult_t found = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(communicator_, &found);
  if (asked != ncclSuccess || found != ncclSuccess) {
    fail(asked != ncclSuccess ? asked : found, "ncclCommGetAsyncError(communicator_, &found)", communicator_);
  }
}

#else

namespace {

[[noreturn]] void missing() { throw kernels::cuda::Error("this build has no NCCL: install it and configure again"); }

}  // namespace

bool nccl_available() { return false; }
void set_nccl_defaults() {}
Communicator::Communicator(Transport& transport, std::vector<int>, std::chrono::milliseconds) : transport_(transport) {
  missing();
}
Communicator::~Communicator() = default;
void Communicator::all_reduce(void*, std::int64_t, Element, cudaStream_t) { missing(); }
void Communicator::reduce_scatter(void*, const void*, std::int64_t, Element, cudaStream_t) { missing(); }
void Communicator::all_gather(void*, const void*, std::int64_t, Element, cudaStream_t) { missing(); }
void Communicator::send(const void*, std::int64_t, int, cudaStream_t) { missing(); }
void Communicator::receive(void*, std::int64_t, int, cudaStream_t) { missing(); }
void Communicator::check() const {}

#endif

}  // namespace stagecraft::cuda
