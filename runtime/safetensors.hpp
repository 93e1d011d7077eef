// The safetensors file format: named tensors after a JSON header, for checkpoints.
//
//   8 bytes   length of the header, little-endian
//   header    {"__metadata__": {"key": "text"}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
//   data      the tensors, at their offsets from the header's end, without gaps or overlaps
// Written as 32-bit floats (F32); F32, BF16 and F16 are read. Other types may be in a file but not be read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace stagecraft {

struct TensorInfo {
  std::string name;
  std::vector<std::int64_t> shape;
  std::int64_t elements() const;
};

using TensorMetadata = std::map<std::string, std::string>;

// Writes one tensor after the other to a temporary file beside `path`; commit() flushes it and renames it over `path`.
// Destroyed without commit() it leaves no file behind. All throw bad_input (full disk, missing folder, no permission).
class SafetensorsWriter {
 public:
  SafetensorsWriter(std::filesystem::path path, const std::vector<TensorInfo>& tensors, const TensorMetadata& metadata);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // The data of the tensors in their order, in pieces of any size.
  void append(std::span<const float> data);
  // REQUIRES: exactly the announced data was appended.
  void commit();

 private:
  void write(const void* data, std::size_t size);
  [[noreturn]] void fail(int error);

  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
  std::int64_t remaining_ = 0;  // elements to append
};

// Opens and checks a file before any memory is taken for tensors. Throws bad_input: truncated, header too long or not
// JSON, offsets that overlap, leave gaps, lie outside or do not fit the shape, other element types.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::filesystem::path& path);
  ~SafetensorsReader();
  SafetensorsReader(const SafetensorsReader&) = delete;
  SafetensorsReader& operator=(const SafetensorsReader&) = delete;

  const std::string& file() const { return file_; }
  const TensorMetadata& metadata() const { return metadata_; }
  const std::vector<TensorInfo>& tensors() const { return tensors_; }  // in the order of their data

  bool has(const std::string& name) const { return position_.contains(name); }
  // Throws bad_input when the tensor is missing, has another shape or holds no floats of up to 32 bits.
  void expect_floats(const std::string& name, std::span<const std::int64_t> shape) const;
  // As floats. Throws as expect_floats. REQUIRES: data holds all its elements.
  void read(const std::string& name, std::span<const std::int64_t> shape, std::span<float> data) const;

 private:
  void parse(std::string_view header, std::int64_t data_bytes);
  std::size_t find_floats(const std::string& name, std::span<const std::int64_t> shape) const;

  std::string file_;
  int descriptor_ = -1;
  std::int64_t data_start_ = 0;
  TensorMetadata metadata_;
  std::vector<TensorInfo> tensors_;
  std::vector<std::int64_t> offsets_;            // bytes from data_start_, by position in tensors_
  std::vector<std::string> types_;               // "F32", "BF16", ..., by position in tensors_
  std::map<std::string, std::size_t> position_;  // by name
};

}  // namespace stagecraft
