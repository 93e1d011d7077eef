// Runs the program as a user does and keeps what it prints.
#pragma once

#include <filesystem>
#include <string>

namespace stagecraft {

struct Outcome {
  int exit = -1;  // 128 + n when a signal n ended it
  std::string out, err;
};

// A new empty folder, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Runs a shell command in `folder` with the program on PATH as `stagecraft`; killed after `seconds`.
Outcome shell(const std::string& command, const std::filesystem::path& folder, int seconds = 120);

}  // namespace stagecraft
