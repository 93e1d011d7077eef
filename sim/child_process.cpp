#include "sim/child_process.hpp"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <deque>
#include <exception>
#include <string_view>
#include <thread>

#include "models/error.hpp"

namespace stagecraft {
namespace {

constexpr std::size_t message_size = 16 << 10;

// What a failing child leaves behind.
struct Failure {
  bool failed;
  ErrorKind kind;
  char message[message_size];  // cut if longer
};

void note(Failure& failure, ErrorKind kind, std::string_view message) {
  failure.failed = true;
  failure.kind = kind;
  std::memcpy(failure.message, message.data(), std::min(message.size(), message_size - 1));
}

void run_guarded(const std::function<void()>& work, Failure& failure) {
  try {
    work();
  } catch (const Error& error) {
    note(failure, error.kind(), error.what());
  } catch (const std::exception& error) {
    note(failure, ErrorKind::internal, error.what());
  }
}

// A child at work. Waits for it at the latest when it is destroyed, so that none is left behind.
class Child {
 public:
  Child(const char* what, const std::function<void()>& work, Failure& failure) : what_(what), failure_(failure) {
    std::fflush(nullptr);  // or the child may write what the parent has buffered
    const pid_t parent = getpid();
    process_ = fork();
    if (process_ < 0) fail(fmt::format("fork: {}", std::strerror(errno)));
    if (process_ != 0) return;
    // Nobody would read what it finds after a kill of the parent, which may have come already.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    run_guarded(work, failure);
    _exit(0);  // without destructors and buffers that belong to the parent
  }
  ~Child() { wait(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // True when it did its work; else the failure is noted.
  bool wait() {
    int status = 0;
    while (process_ > 0 && waitpid(process_, &status, 0) < 0) {
      if (errno == EINTR) continue;
      fail(fmt::format("waitpid: {}", std::strerror(errno)));
      break;
    }
    process_ = -1;
    if (failure_.failed) return false;
    if (WIFSIGNALED(status)) {
      fail(fmt::format("the child process died of signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status))));
    } else if (WEXITSTATUS(status) != 0) {
      fail(fmt::format("the child process ended with status {}", WEXITSTATUS(status)));
    }
    return !failure_.failed;
  }

 private:
  void fail(const std::string& why) { note(failure_, ErrorKind::internal, fmt::format("{}: {}", what_, why)); }

  const char* what_;
  Failure& failure_;
  pid_t process_ = -1;
};

}  // namespace

SharedMemory::SharedMemory(std::size_t bytes) : bytes_(std::max<std::size_t>(bytes, 1)) {
  void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(ErrorKind::internal, fmt::format("{} bytes of shared memory: {}", bytes_, std::strerror(errno)));
  }
  data_ = static_cast<std::byte*>(memory);
}

SharedMemory::~SharedMemory() { munmap(data_, bytes_); }

void run_in_children(const char* what, std::size_t count, const std::function<void(std::size_t)>& work) {
  const SharedMemory memory(count * sizeof(Failure));
  auto* const failures = reinterpret_cast<Failure*>(memory.data());
  const std::size_t at_once = std::max(1U, std::thread::hardware_concurrency());
  std::deque<Child> running;
  bool well = true;
  // Who began first is waited for first: what is run together takes about as long.
  const auto wait = [&] {
    well = running.front().wait() && well;
    running.pop_front();
  };
  for (std::size_t i = 0; i < count && well; ++i) {
    running.emplace_back(
        what, [&work, i] { work(i); }, failures[i]);
    if (running.size() == at_once) wait();
  }
  while (!running.empty()) wait();
  for (std::size_t i = 0; i < count; ++i) {
    if (failures[i].failed) throw Error(failures[i].kind, failures[i].message);
  }
}

}  // namespace stagecraft
