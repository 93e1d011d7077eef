// For parsers that read files: the fuzzer's input in a file of this process.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace stagecraft {

class FileInput {
 public:
  FileInput(std::string_view content, const std::string& extension)
      : path_(std::filesystem::temp_directory_path() /
              ("stagecraft-fuzz-" + std::to_string(::getpid()) + "." + extension)) {
    std::ofstream(path_, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
  }
  ~FileInput() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  FileInput(const FileInput&) = delete;
  FileInput& operator=(const FileInput&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace stagecraft
