#include "runtime/token_data.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "models/error.hpp"

namespace stagecraft {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are little-endian");

constexpr std::int32_t llmc_magic = 20240520;
constexpr std::int64_t llmc_header_bytes = 1024;  // 256 int32
constexpr std::int64_t chunk_tokens = 1 << 16;

// The output function of splitmix64 (Steele et al. 2014): every input bit flips about half of the output bits.
std::uint64_t mix(std::uint64_t z) {
  z += 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

// Uniform in [0, limit), by the high half of the product: the bias, limit / 2^64, is far below any use.
std::int64_t below(std::uint64_t random, std::int64_t limit) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::int64_t>((static_cast<Wide>(random) * static_cast<Wide>(limit)) >> 64);
}

}  // namespace

struct TokenData::File {
  std::string name;
  int descriptor = -1;
  int token_bytes = 1;
  std::int64_t header_bytes = 0;
  std::int64_t first = 0;  // position of the file's first token in the stream
  std::int64_t count = 0;

  explicit File(const std::filesystem::path& path) : name(path.string()) {
    // Without O_NONBLOCK, opening a FIFO would wait for a writer.
    descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) throw bad_input("{}: cannot be read: {}", name, std::strerror(errno));
  }
  ~File() {
    if (descriptor >= 0) ::close(descriptor);
  }
  File(File&& other) noexcept
      : name(std::move(other.name)),
        descriptor(std::exchange(other.descriptor, -1)),
        token_bytes(other.token_bytes),
        header_bytes(other.header_bytes),
        first(other.first),
        count(other.count) {}
  File& operator=(File&& other) noexcept {
    std::swap(name, other.name);
    std::swap(descriptor, other.descriptor);
    token_bytes = other.token_bytes, header_bytes = other.header_bytes, first = other.first, count = other.count;
    return *this;
  }

  void read_bytes(std::int64_t offset, void* target, std::size_t size) const {
    auto* at = static_cast<char*>(target);
    while (size > 0) {
      const ssize_t got = ::pread(descriptor, at, size, offset);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw bad_input("{}: cannot be read at byte {}: {}", name, offset, std::strerror(errno));
      if (got == 0) throw bad_input("{}: ends at byte {}: the file became shorter while it was read", name, offset);
      at += got, offset += got, size -= static_cast<std::size_t>(got);
    }
  }

  // Tokens [from, from + tokens.size()) of this file.
  void read_tokens(std::int64_t from, std::span<std::int32_t> tokens) const {
    std::array<std::uint8_t, 8192> buffer;
    const std::size_t step = buffer.size() / static_cast<std::size_t>(token_bytes);
    for (std::size_t done = 0; done < tokens.size(); done += step) {
      const std::size_t count_now = std::min(step, tokens.size() - done);
      const std::int64_t offset = header_bytes + (from + static_cast<std::int64_t>(done)) * token_bytes;
      read_bytes(offset, buffer.data(), count_now * static_cast<std::size_t>(token_bytes));
      for (std::size_t i = 0; i < count_now; ++i) {
        tokens[done + i] = token_bytes == 1 ? buffer[i] : buffer[2 * i] | (buffer[2 * i + 1] << 8);
      }
    }
  }

  void check_vocabulary(std::int64_t from, std::span<const std::int32_t> tokens, std::int64_t vocabulary) const {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] < vocabulary) continue;
      const std::int64_t at = from + static_cast<std::int64_t>(i);
      throw bad_input("{}: token {} (byte {}): expected below the network's vocabulary of {}, got {}", name, at,
                      header_bytes + at * token_bytes, vocabulary, tokens[i]);
    }
  }

  void detect_format();
  void check_llmc_header(std::int64_t size);
};

void TokenData::File::detect_format() {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) throw bad_input("{}: cannot be read: {}", name, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) throw bad_input("{}: expected a regular file", name);
  const std::int64_t size = status.st_size;
  if (size == 0) throw bad_input("{}: expected tokens, the file is empty", name);
  if (!name.ends_with(".bin")) {
    count = size;
    return;
  }
  token_bytes = 2;
  std::int32_t magic = 0;
  if (size >= 4) read_bytes(0, &magic, sizeof magic);
  if (magic == llmc_magic) {
    check_llmc_header(size);
  } else {
    if (size % 2 != 0) {
      throw bad_input("{}: expected tokens of 2 bytes each, the file has an odd number of bytes ({})", name, size);
    }
    count = size / 2;
  }
}

void TokenData::File::check_llmc_header(std::int64_t size) {
  if (size < llmc_header_bytes) {
    throw bad_input("{}: expected a header of {} bytes, the file has {}", name, llmc_header_bytes, size);
  }
  std::array<std::int32_t, 3> header;  // magic, version, token count
  read_bytes(0, header.data(), sizeof header);
  if (header[1] != 1) throw bad_input("{}: header: version (byte 4): expected 1, got {}", name, header[1]);
  if (header[2] <= 0) throw bad_input("{}: header: token count (byte 8): expected above 0, got {}", name, header[2]);
  header_bytes = llmc_header_bytes;
  count = header[2];
  const std::int64_t expected = llmc_header_bytes + count * 2;
  if (size != expected) {
    throw bad_input("{}: header announces {} tokens, {} bytes in all, the file has {}", name, count, expected, size);
  }
}

TokenData::TokenData(const std::vector<std::filesystem::path>& files, std::int64_t vocabulary, std::int64_t sequence)
    : vocabulary_(vocabulary), sequence_(sequence) {
  assert(vocabulary > 0 && sequence > 0);
  if (files.empty()) throw bad_input("no data: expected at least one text or token file");
  std::vector<std::int32_t> chunk(chunk_tokens);
  for (const std::filesystem::path& path : files) {
    File& file = files_.emplace_back(path);
    file.detect_format();
    file.first = tokens_;
    tokens_ += file.count;
    for (std::int64_t from = 0; from < file.count; from += chunk_tokens) {
      const auto part = std::span(chunk).first(static_cast<std::size_t>(std::min(chunk_tokens, file.count - from)));
      file.read_tokens(from, part);
      file.check_vocabulary(from, part, vocabulary_);
    }
  }
  if (tokens_ <= sequence_) {
    throw bad_input("{}: expected at least {} tokens (a sample of {} and the one that follows), got {}{}",
                    files_.front().name, sequence_ + 1, sequence_, tokens_,
                    files_.size() > 1 ? " in all files together" : "");
  }
}

TokenData::~TokenData() = default;
TokenData::TokenData(TokenData&&) noexcept = default;
TokenData& TokenData::operator=(TokenData&&) noexcept = default;

void TokenData::read(std::int64_t first, std::span<std::int32_t> tokens) const {
  // The last file that starts at or before `first`.
  auto file = std::upper_bound(files_.begin(), files_.end(), first,
                               [](std::int64_t position, const File& f) { return position < f.first; });
  for (--file; !tokens.empty(); ++file) {
    const std::int64_t from = first - file->first;
    const std::int64_t count = std::min(file->count - from, static_cast<std::int64_t>(tokens.size()));
    const auto part = tokens.first(static_cast<std::size_t>(count));
    file->read_tokens(from, part);
    file->check_vocabulary(from, part, vocabulary_);  // the file may have changed since it was opened
    tokens = tokens.subspan(part.size());
    first += count;
  }
}

void TokenData::sample(std::uint64_t seed, std::int64_t step, std::int64_t index, std::span<std::int32_t> inputs,
                       std::span<std::int32_t> targets) const {
  assert(inputs.empty() || static_cast<std::int64_t>(inputs.size()) == sequence_);
  assert(targets.empty() || static_cast<std::int64_t>(targets.size()) == sequence_);
  const std::uint64_t random =
      mix(mix(mix(seed) ^ static_cast<std::uint64_t>(step)) ^ static_cast<std::uint64_t>(index));
  const std::int64_t first = below(random, tokens_ - sequence_);
  read(first, inputs);
  read(first + 1, targets);
}

}  // namespace stagecraft
