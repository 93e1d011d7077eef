#include "models/files.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "models/error.hpp"

namespace stagecraft {
namespace {

class File {
 public:
  File(const std::filesystem::path& path, int flags) : descriptor_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {}
  ~File() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  bool open() const { return descriptor_ >= 0; }
  int get() const { return descriptor_; }
  // Network file systems report a full disk as late as here.
  bool close() { return ::close(std::exchange(descriptor_, -1)) == 0; }

 private:
  int descriptor_;
};

}  // namespace

std::string read_file(const std::filesystem::path& path, std::uint64_t max_bytes) {
  // Without O_NONBLOCK, opening a FIFO would wait for a writer.
  File file(path, O_RDONLY | O_NONBLOCK);
  struct stat status {};
  if (!file.open() || ::fstat(file.get(), &status) != 0) {
    throw bad_input("{}: cannot be read: {}", path.string(), std::strerror(errno));
  }
  if (!S_ISREG(status.st_mode)) throw bad_input("{}: expected a regular file", path.string());
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size > max_bytes) {
    throw bad_input("{}: expected at most {} bytes, the file has {}", path.string(), max_bytes, size);
  }
  std::string content(size, '\0');
  std::size_t done = 0;
  while (done < content.size()) {
    const ssize_t count = ::read(file.get(), content.data() + done, content.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw bad_input("{}: cannot be read: {}", path.string(), std::strerror(errno));
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  content.resize(done);
  return content;
}

void write_file(const std::filesystem::path& path, std::string_view content) {
  // The process id keeps two runs that write the same file from sharing a temporary one.
  std::filesystem::path temporary = path;
  temporary += fmt::format(".{}.tmp", ::getpid());
  const auto fail = [&](int error) {
    ::unlink(temporary.c_str());
    throw bad_input("{}: cannot be written: {}", path.string(), std::strerror(error));
  };
  File file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
  if (!file.open()) fail(errno);
  for (std::string_view rest = content; !rest.empty();) {
    const ssize_t count = ::write(file.get(), rest.data(), rest.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(errno);
    rest.remove_prefix(static_cast<std::size_t>(count));
  }
  if (::fsync(file.get()) != 0 || !file.close()) fail(errno);
  if (::rename(temporary.c_str(), path.c_str()) != 0) fail(errno);
}

std::string digest(std::string_view content) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : content) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return fmt::format("{:016x}", hash);
}

}  // namespace stagecraft
