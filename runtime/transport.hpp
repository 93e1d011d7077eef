// Messages between the workers of a run. A worker is one device of the plan, numbered as runtime/worker_grid.hpp says.
//
// A receive takes the message with its tag, whatever else has arrived; messages of one ordered pair of workers with
// equal tags in the order of their sends. A send copies its buffer and leaves the worker free, unless `capacity`
// messages of that pair and lane are unreceived: then it waits. A wait never hangs: it ends with the message, with the
// abort of any worker, or after the peer timeout.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "models/error.hpp"

namespace stagecraft {

// tensor: between the shards of a rank, within an action.
enum class Lane : std::uint8_t { forward, backward, tied, gradient, control, tensor };
inline constexpr int lane_count = 6;

// Travels with the message and finds its receive.
struct MessageTag {
  Lane lane = Lane::control;
  std::int32_t stage = 0;  // of the sender
  std::int32_t microbatch = -1;
  bool operator==(const MessageTag&) const = default;
};

struct TransportOptions {
  int capacity = 1;                                // unreceived messages of an ordered pair and lane
  std::chrono::milliseconds peer_timeout{120000};  // longest wait for a peer
  const std::atomic<bool>* terminate = nullptr;    // set (by a signal handler): end every wait now
};

// One worker's end.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual int worker() const = 0;
  virtual int workers() const = 0;
  // Whether steady_clock means the same to all workers (they are on one host).
  virtual bool shared_clock() const = 0;

  // Both throw device errors that say what ended the wait ("no message within 10 s; has its process died?"); the
  // caller adds who waited for what. REQUIRES: the peer is another worker.
  virtual void send(int to, const MessageTag& tag, std::span<const std::byte> message) = 0;
  // Throws internal when the message has another size.
  virtual void receive(int from, const MessageTag& tag, std::span<std::byte> message) = 0;

  // Whether all workers are threads of one process.
  virtual bool one_process() const = 0;

  // For those that wait for something else: throws device, as a wait here would, once a worker has ended the run.
  virtual void check_running() const = 0;

  // Memory of messages that this worker has sent, at its highest.
  virtual std::int64_t buffer_bytes() const = 0;
};

// For implementations. Throws internal unless what arrived is what was expected.
void check_arrival(const MessageTag& expected, std::size_t expected_bytes, const MessageTag& arrived,
                   std::size_t arrived_bytes);
// "no message within 10 s; has its process died?"
Error peer_silent(const char* missing, std::chrono::milliseconds timeout);

// Workers as threads of this process.
class ChannelNetwork {
 public:
  ChannelNetwork(int workers, const TransportOptions& options);
  ~ChannelNetwork();
  ChannelNetwork(const ChannelNetwork&) = delete;
  ChannelNetwork& operator=(const ChannelNetwork&) = delete;

  // The end of one worker; used by one thread at a time, must not outlive the network.
  std::unique_ptr<Transport> endpoint(int worker);
  // Wakes every waiting worker; their waits throw device errors.
  void abort();

 private:
  friend class ChannelEndpoint;
  struct Mailbox;
  TransportOptions options_;
  std::atomic<bool> aborted_{false};
  std::unique_ptr<Mailbox[]> mailboxes_;  // by receiving worker
  int workers_;
};

// MPI for the lifetime of this object, one worker a process. Construct it once, first thing in main, when launched()
// and before any thread. Builds without MPI: launched() is false and the constructor throws a device error.
class MpiSession {
 public:
  // Whether a launcher (mpirun, srun) started this process as one of several, judged by its environment.
  static bool launched();

  MpiSession();
  // Ends MPI. While an exception flies it must not wait for peers that are gone, and aborts all processes instead.
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int process() const { return process_; }
  int processes() const { return processes_; }
  // Among the processes of this host.
  int local_process() const { return local_process_; }
  int local_processes() const { return local_processes_; }

  std::unique_ptr<Transport> endpoint(const TransportOptions& options);
  // Ends all processes of the launch at once with this exit code. What there is to say must be on stderr already.
  [[noreturn]] void abort(int exit_code);

 private:
  int process_ = 0, processes_ = 1, local_process_ = 0, local_processes_ = 1;
  int exceptions_ = 0;  // in flight at construction
};

}  // namespace stagecraft
