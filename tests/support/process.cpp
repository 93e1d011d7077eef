#include "tests/support/process.hpp"

#include <stdlib.h>
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace stagecraft {
namespace {

std::string content(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "stagecraft-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Outcome shell(const std::string& command, const std::filesystem::path& folder, int seconds) {
  const TemporaryFolder capture;
  const auto out = capture.path() / "out", err = capture.path() / "err", script = capture.path() / "script";
  std::ofstream(script) << "export PATH='" << STAGECRAFT_FOLDER << "':$PATH\n" << command << "\n";
  const std::string line = "cd '" + folder.string() + "' && timeout -k 5 " + std::to_string(seconds) + " sh '" +
                           script.string() + "' > '" + out.string() + "' 2> '" + err.string() + "' < /dev/null";
  const int status = std::system(line.c_str());
  Outcome outcome;
  outcome.exit = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.out = content(out);
  outcome.err = content(err);
  return outcome;
}

}  // namespace stagecraft
