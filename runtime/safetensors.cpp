#include "runtime/safetensors.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "models/error.hpp"
#include "models/json_reader.hpp"
#include "models/text.hpp"

namespace stagecraft {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr std::uint64_t max_header_bytes = 100'000'000;  // the format's own limit
constexpr std::int64_t max_elements = std::int64_t{1} << 56;
constexpr std::size_t max_dimensions = 8;

void read_exactly(int descriptor, const std::string& file, std::int64_t offset, void* target, std::size_t size) {
  auto* at = static_cast<char*>(target);
  while (size > 0) {
    const ssize_t got = ::pread(descriptor, at, size, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw bad_input("{}: cannot be read at byte {}: {}", file, offset, std::strerror(errno));
    if (got == 0) throw bad_input("{}: truncated: ends at byte {}, {} more expected", file, offset, size);
    at += got, offset += got, size -= static_cast<std::size_t>(got);
  }
}

std::string header_of(const std::vector<TensorInfo>& tensors, const TensorMetadata& metadata) {
  Json header = Json::object();
  for (const auto& [key, text] : metadata) header["__metadata__"][key] = text;
  std::int64_t offset = 0;
  for (const TensorInfo& tensor : tensors) {
    const std::int64_t end = offset + tensor.elements() * 4;
    header[tensor.name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // so that the data is aligned
  return text;
}

// Types of the format and their bytes an element.
constexpr std::array<std::pair<std::string_view, int>, 14> element_types{{{"F32", 4},
                                                                          {"BF16", 2},
                                                                          {"F16", 2},
                                                                          {"F64", 8},
                                                                          {"F8_E4M3", 1},
                                                                          {"F8_E5M2", 1},
                                                                          {"I64", 8},
                                                                          {"I32", 4},
                                                                          {"I16", 2},
                                                                          {"I8", 1},
                                                                          {"U8", 1},
                                                                          {"U16", 2},
                                                                          {"U32", 4},
                                                                          {"BOOL", 1}}};

struct Entry {
  TensorInfo tensor;
  std::string type;
  std::int64_t begin, end;
};

float from_bf16(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

// IEEE 754 binary16.
float from_f16(std::uint16_t bits) {
  const int exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
  float value = exponent == 0     ? std::ldexp(static_cast<float>(fraction), -24)
                : exponent < 0x1f ? std::ldexp(static_cast<float>(fraction | 0x400), exponent - 25)
                : fraction == 0   ? std::numeric_limits<float>::infinity()
                                  : std::numeric_limits<float>::quiet_NaN();
  return (bits & 0x8000) != 0 ? -value : value;
}

Entry entry_from_json(const std::string& name, const JsonValue& value) {
  JsonObject object = value.object();
  Entry entry{{name, {}}, "", 0, 0};
  const JsonValue type = object.required("dtype");
  entry.type = type.string();
  const auto* const known = std::find_if(element_types.begin(), element_types.end(),
                                         [&](const auto& each) { return each.first == entry.type; });
  if (known == element_types.end()) throw type.expected("a type such as \"F32\" or \"BF16\"");
  const JsonValue shape = object.required("shape");
  std::int64_t elements = 1;
  for (const JsonValue& size : shape.array(max_dimensions)) {
    entry.tensor.shape.push_back(size.integer(0, max_elements));
    const std::int64_t factor = entry.tensor.shape.back();
    if (factor > 0 && elements > max_elements / factor) throw shape.expected("at most 2^56 elements");
    elements *= factor;
  }
  const JsonValue offsets = object.required("data_offsets");
  const auto ends = offsets.array(2);
  if (ends.size() != 2) throw offsets.expected("[begin, end]");
  entry.begin = ends[0].integer(0, max_elements * 8);
  entry.end = ends[1].integer(0, max_elements * 8);
  if (entry.end - entry.begin != elements * known->second) {
    throw offsets.complain(fmt::format("expected {} bytes for shape [{}], got [{}, {}]", elements * known->second,
                                       fmt::join(entry.tensor.shape, ", "), entry.begin, entry.end));
  }
  object.finish();
  return entry;
}

}  // namespace

std::int64_t TensorInfo::elements() const {
  std::int64_t product = 1;
  for (const std::int64_t size : shape) product *= size;
  return product;
}

SafetensorsWriter::SafetensorsWriter(std::filesystem::path path, const std::vector<TensorInfo>& tensors,
                                     const TensorMetadata& metadata)
    : path_(std::move(path)), temporary_(path_) {
  // The process id keeps two runs that write the same file from sharing a temporary one.
  temporary_ += fmt::format(".{}.tmp", ::getpid());
  for (const TensorInfo& tensor : tensors) remaining_ += tensor.elements();
  const std::string header = header_of(tensors, metadata);
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail(errno);
  const std::uint64_t length = header.size();
  write(&length, sizeof length);
  write(header.data(), header.size());
}

SafetensorsWriter::~SafetensorsWriter() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void SafetensorsWriter::fail(int error) {
  if (descriptor_ >= 0) {
    ::close(std::exchange(descriptor_, -1));
    ::unlink(temporary_.c_str());
  }
  throw bad_input("{}: cannot be written: {}", path_.string(), std::strerror(error));
}

void SafetensorsWriter::write(const void* data, std::size_t size) {
  const auto* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t count = ::write(descriptor_, at, size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(errno);
    at += count, size -= static_cast<std::size_t>(count);
  }
}

void SafetensorsWriter::append(std::span<const float> data) {
  remaining_ -= static_cast<std::int64_t>(data.size());
  assert(remaining_ >= 0);
  write(data.data(), data.size_bytes());
}

void SafetensorsWriter::commit() {
  assert(remaining_ == 0);
  if (::fsync(descriptor_) != 0) fail(errno);
  // Network file systems report a full disk as late as here.
  if (::close(std::exchange(descriptor_, -1)) != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    fail(error);
  }
}

SafetensorsReader::SafetensorsReader(const std::filesystem::path& path) : file_(path.string()) {
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat status {};
  if (descriptor_ < 0 || ::fstat(descriptor_, &status) != 0) {
    throw bad_input("{}: cannot be read: {}", file_, std::strerror(errno));
  }
  try {
    if (!S_ISREG(status.st_mode)) throw bad_input("{}: expected a regular file", file_);
    std::uint64_t length = 0;
    read_exactly(descriptor_, file_, 0, &length, sizeof length);
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (length > max_header_bytes || length > size - sizeof length) {
      throw bad_input("{}: expected a safetensors header of at most {} bytes, its length says {}", file_,
                      std::min(max_header_bytes, size - sizeof length), length);
    }
    std::string header(length, '\0');
    read_exactly(descriptor_, file_, sizeof length, header.data(), header.size());
    data_start_ = static_cast<std::int64_t>(sizeof length + length);
    parse(header, status.st_size - data_start_);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

SafetensorsReader::~SafetensorsReader() { ::close(descriptor_); }

void SafetensorsReader::parse(std::string_view header, std::int64_t data_bytes) {
  const Json document = parse_json(header, file_);
  JsonObject object = JsonValue(document, file_).object();
  std::vector<Entry> entries;
  for (const auto& [name, value] : object.fields()) {
    if (name == "__metadata__") {
      for (const auto& [key, text] : value.object().fields()) metadata_[key] = text.string(1 << 20);
    } else {
      entries.push_back(entry_from_json(name, value));
    }
  }
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.begin < b.begin; });
  std::int64_t next = 0;
  for (Entry& entry : entries) {
    const std::string name = printable(entry.tensor.name);
    if (entry.begin != next) {
      throw bad_input("{}: {}.data_offsets: {} the tensor before it: expected to begin at {}, got {}", file_, name,
                      entry.begin < next ? "overlaps" : "leaves a gap after", next, entry.begin);
    }
    next = entry.end;
    offsets_.push_back(entry.begin);
    types_.push_back(std::move(entry.type));
    position_.emplace(entry.tensor.name, tensors_.size());
    tensors_.push_back(std::move(entry.tensor));
  }
  if (next != data_bytes) {
    throw bad_input("{}: {}: the header announces {} bytes of data, the file has {}", file_,
                    next > data_bytes ? "truncated" : "too long", next, data_bytes);
  }
}

std::size_t SafetensorsReader::find_floats(const std::string& name, std::span<const std::int64_t> shape) const {
  const auto found = position_.find(name);
  if (found == position_.end()) throw bad_input("{}: no tensor '{}'", file_, name);
  const TensorInfo& tensor = tensors_[found->second];
  if (!std::equal(shape.begin(), shape.end(), tensor.shape.begin(), tensor.shape.end())) {
    throw bad_input("{}: {}.shape: expected [{}], got [{}]", file_, name, fmt::join(shape, ", "),
                    fmt::join(tensor.shape, ", "));
  }
  const std::string& type = types_[found->second];
  if (type != "F32" && type != "BF16" && type != "F16") {
    throw bad_input("{}: {}.dtype: expected F32, BF16 or F16, got {}", file_, name, type);
  }
  return found->second;
}

void SafetensorsReader::expect_floats(const std::string& name, std::span<const std::int64_t> shape) const {
  find_floats(name, shape);
}

void SafetensorsReader::read(const std::string& name, std::span<const std::int64_t> shape,
                             std::span<float> data) const {
  const std::size_t position = find_floats(name, shape);
  assert(static_cast<std::int64_t>(data.size()) == tensors_[position].elements());
  const std::int64_t offset = data_start_ + offsets_[position];
  const std::string& type = types_[position];
  if (type == "F32") return read_exactly(descriptor_, file_, offset, data.data(), data.size_bytes());
  // Into the upper half of the floats, which the conversion then overtakes nowhere.
  auto* const halves = reinterpret_cast<std::uint16_t*>(data.data()) + data.size();
  read_exactly(descriptor_, file_, offset, halves, data.size() * sizeof *halves);
  for (std::size_t i = 0; i < data.size(); ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, halves + i, sizeof bits);
    data[i] = type == "BF16" ? from_bf16(bits) : from_f16(bits);
  }
}

}  // namespace stagecraft
