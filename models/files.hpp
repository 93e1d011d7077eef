// Whole files in and out of memory, so that nothing is ever left half-written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace stagecraft {

// The content of a regular file of at most `max_bytes`. Throws bad_input naming the file and the reason.
std::string read_file(const std::filesystem::path& path, std::uint64_t max_bytes = 256ULL << 20);

// Writes to a temporary name beside `path`, flushes it to the device and renames it over `path`: a reader sees the old
// content or the new, never a part. Throws bad_input (full disk, missing folder, no permission) and leaves the old file
// whole and no temporary file behind.
void write_file(const std::filesystem::path& path, std::string_view content);

// FNV-1a, 64 bits, as 16 hexadecimal digits: identifies the inputs of a plan, not a defence against forgery.
std::string digest(std::string_view content);

}  // namespace stagecraft
