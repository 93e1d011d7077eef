// The only file that knows MPI (its C interface). Without STAGECRAFT_WITH_MPI it says so.
#include <cstdlib>
#include <exception>
#include <string>

#include "runtime/transport.hpp"

#ifdef STAGECRAFT_WITH_MPI

#define OMPI_SKIP_MPICXX 1
#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <thread>
#include <vector>

namespace stagecraft {
namespace {

using Clock = std::chrono::steady_clock;

// MPI counts in int; larger messages travel in pieces.
constexpr std::size_t largest_piece = std::size_t{1} << 30;

void check(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw device_error("{}: {}", what, std::string(text, static_cast<std::size_t>(length)));
}

// The highest tag that this MPI can carry; at least 32767.
int highest_tag() {
  int* value = nullptr;
  int found = 0;
  MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, static_cast<void*>(&value), &found);
  return found != 0 ? *value : 32767;
}

// Lanes are communicators, so that each has an order of its own.
class MpiEndpoint : public Transport {
 public:
  MpiEndpoint(const TransportOptions& options, int process, int processes, bool one_host)
      : options_(options), process_(process), processes_(processes), one_host_(one_host) {
    for (MPI_Comm& lane : lanes_) {
      check(MPI_Comm_dup(MPI_COMM_WORLD, &lane), "MPI_Comm_dup");
      MPI_Comm_set_errhandler(lane, MPI_ERRORS_RETURN);
    }
  }

  ~MpiEndpoint() override {
    if (std::uncaught_exceptions() > 0) return;  // all processes will be aborted
    const auto deadline = Clock::now() + options_.peer_timeout;
    while (!finish_sends() && Clock::now() < deadline) ::sched_yield();
    for (MPI_Comm& lane : lanes_) MPI_Comm_free(&lane);
  }

  int worker() const override { return process_; }
  int workers() const override { return processes_; }
  bool shared_clock() const override { return one_host_; }
  bool one_process() const override { return false; }
  std::int64_t buffer_bytes() const override { return buffer_bytes_; }

  void check_running() const override {
    if (options_.terminate == nullptr || !*options_.terminate) return;
    throw device_error("told to terminate while waiting; has another process died?");
  }

  void send(int to, const MessageTag& tag, std::span<const std::byte> content) override {
    do {
      const auto piece = content.first(std::min(content.size(), largest_piece));
      send_piece(to, tag, piece);
      content = content.subspan(piece.size());
    } while (!content.empty());
  }

  void receive(int from, const MessageTag& tag, std::span<std::byte> content) override {
    do {
      const auto piece = content.first(std::min(content.size(), largest_piece));
      receive_piece(from, tag, piece);
      content = content.subspan(piece.size());
    } while (!content.empty());
  }

 private:
  struct Outgoing {
    int to = 0;
    Lane lane = Lane::control;
    std::vector<std::byte> content;
    MPI_Request request = MPI_REQUEST_NULL;
  };

  void send_piece(int to, const MessageTag& tag, std::span<const std::byte> content) {
    const auto unreceived = [&] {
      finish_sends();
      return std::count_if(outgoing_.begin(), outgoing_.end(),
                           [&](const Outgoing& o) { return o.to == to && o.lane == tag.lane; });
    };
    wait([&] { return unreceived() < options_.capacity; }, "no room");
    Outgoing& message = outgoing_.emplace_back();
    message.to = to;
    message.lane = tag.lane;
    message.content = take_spare(content.size());
    std::copy(content.begin(), content.end(), message.content.begin());
    // The test for its end is in finish_sends.
    // NOLINTNEXTLINE(clang-analyzer-optin.mpi.MPI-Checker)
    const int code = MPI_Isend(message.content.data(), static_cast<int>(content.size()), MPI_BYTE, to, tag_number(tag),
                               lane(tag), &message.request);
    check(code, "MPI_Isend");
  }

  void receive_piece(int from, const MessageTag& tag, std::span<std::byte> content) {
    MPI_Request request = MPI_REQUEST_NULL;
    const int code = MPI_Irecv(content.data(), static_cast<int>(content.size()), MPI_BYTE, from, tag_number(tag),
                               lane(tag), &request);
    check(code, "MPI_Irecv");
    MPI_Status status;
    // The analyser does not see that MPI_Test below ends the request.
    // NOLINTBEGIN(clang-analyzer-optin.mpi.MPI-Checker)
    const auto arrived = [&] {
      int done = 0;
      check(MPI_Test(&request, &done, &status), "the message");
      return done != 0;
    };
    try {
      wait(arrived, "no message");
    } catch (...) {
      // The buffer may go; the peer is dead or silent, so the cancellation needs no partner.
      if (request != MPI_REQUEST_NULL) MPI_Cancel(&request);
      throw;
    }
    // NOLINTEND(clang-analyzer-optin.mpi.MPI-Checker)
    int bytes = 0;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    check_arrival(tag, content.size(), tag, static_cast<std::size_t>(bytes));
  }

  // Different for the messages of two ranks in one step, unless a plan has over 2^31 / 1048583 stages.
  int tag_number(const MessageTag& tag) const {
    const std::int64_t number = std::int64_t{tag.stage} * 1'048'583 + tag.microbatch + 1;
    return static_cast<int>(number % (std::int64_t{highest_tag_} + 1));
  }

  MPI_Comm lane(const MessageTag& tag) const { return lanes_[static_cast<std::size_t>(tag.lane)]; }

  std::vector<std::byte> take_spare(std::size_t size) {
    const auto fits = std::find_if(spare_.begin(), spare_.end(), [&](const auto& s) { return s.size() == size; });
    if (fits == spare_.end()) {
      buffer_bytes_ += static_cast<std::int64_t>(size);
      return std::vector<std::byte>(size);
    }
    std::vector<std::byte> taken = std::move(*fits);
    spare_.erase(fits);
    return taken;
  }

  // Collects the buffers of sends that are through. Returns whether none is left.
  bool finish_sends() {
    std::erase_if(outgoing_, [&](Outgoing& message) {
      int done = 0;
      check(MPI_Test(&message.request, &done, MPI_STATUS_IGNORE), "a message sent before");
      if (done != 0) spare_.push_back(std::move(message.content));
      return done != 0;
    });
    return outgoing_.empty();
  }

  template <class Condition>
  void wait(Condition&& condition, const char* missing) {
    const auto start = Clock::now();
    for (;;) {
      check_running();
      if (condition()) return;
      const auto waited = Clock::now() - start;
      if (waited >= options_.peer_timeout) throw peer_silent(missing, options_.peer_timeout);
      // A short wait keeps the core for a quick answer; a long one leaves it to others.
      if (waited < std::chrono::microseconds(300)) {
        ::sched_yield();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(20));
      }
    }
  }

  TransportOptions options_;
  int process_, processes_;
  bool one_host_;
  int highest_tag_ = highest_tag();
  MPI_Comm lanes_[lane_count] = {};
  std::vector<Outgoing> outgoing_;
  std::vector<std::vector<std::byte>> spare_;
  std::int64_t buffer_bytes_ = 0;
};

long number_in_environment(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::strtol(text, nullptr, 10);
}

}  // namespace

bool MpiSession::launched() {
  return number_in_environment("OMPI_COMM_WORLD_SIZE") > 1 || number_in_environment("PMI_SIZE") > 1 ||
         (std::getenv("PMIX_RANK") != nullptr && std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr);
}

MpiSession::MpiSession() : exceptions_(std::uncaught_exceptions()) {
  int provided = 0;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
    throw device_error("MPI cannot be started");
  }
  MPI_Comm_rank(MPI_COMM_WORLD, &process_);
  MPI_Comm_size(MPI_COMM_WORLD, &processes_);
  MPI_Comm host;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, process_, MPI_INFO_NULL, &host);
  MPI_Comm_rank(host, &local_process_);
  MPI_Comm_size(host, &local_processes_);
  MPI_Comm_free(&host);
}

MpiSession::~MpiSession() {
  if (std::uncaught_exceptions() > exceptions_) MPI_Abort(MPI_COMM_WORLD, static_cast<int>(ErrorKind::device));
  MPI_Finalize();
}

std::unique_ptr<Transport> MpiSession::endpoint(const TransportOptions& options) {
  return std::make_unique<MpiEndpoint>(options, process_, processes_, local_processes_ == processes_);
}

void MpiSession::abort(int exit_code) {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::abort();  // MPI_Abort does not return
}

}  // namespace stagecraft

#else

namespace stagecraft {

bool MpiSession::launched() { return false; }
MpiSession::MpiSession() { throw device_error("this build has no MPI: install it and configure again"); }
MpiSession::~MpiSession() = default;
std::unique_ptr<Transport> MpiSession::endpoint(const TransportOptions&) { return nullptr; }
void MpiSession::abort(int) { std::abort(); }

}  // namespace stagecraft

#endif
