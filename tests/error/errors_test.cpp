// Every bad input is one line on stderr with file, field, value and expectation, the exit code of its kind, and
// nothing half-written. The cases are data: cases.txt.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/process.hpp"

namespace stagecraft {
namespace {

namespace fs = std::filesystem;

struct Case {
  std::string command, message;
  int exit = 0;
  int line = 0;
};

// Blocks of three lines, separated by anything else:
//   $ command
//   exit code
//   expected stderr, "..." standing for any text
std::vector<Case> read_cases() {
  std::ifstream file(fs::path(ERROR_FOLDER) / "cases.txt");
  std::vector<Case> cases;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (!line.starts_with("$ ")) continue;
    Case found;
    found.command = line.substr(2);
    found.line = number;
    std::getline(file, line), ++number;
    found.exit = std::stoi(line);
    std::getline(file, found.message), ++number;
    cases.push_back(found);
  }
  return cases;
}

// Whether the pieces of `pattern` between "..." stand in `text` in order, the first and the last at its ends.
bool matches(std::string_view text, std::string_view pattern) {
  bool anchored = true;
  while (true) {
    const auto dots = pattern.find("...");
    const std::string_view piece = pattern.substr(0, dots);
    if (dots == std::string_view::npos) return anchored ? text == piece : text.ends_with(piece);
    const auto at = text.find(piece);
    if (at == std::string_view::npos || (anchored && at != 0)) return false;
    text.remove_prefix(at + piece.size());
    pattern.remove_prefix(dots + 3);
    anchored = false;
  }
}

class Errors : public testing::TestWithParam<Case> {};

TEST_P(Errors, AreOneLineThatSaysWhatToDo) {
  const TemporaryFolder folder;
  fs::copy(fs::path(ERROR_FOLDER) / "files", folder.path(), fs::copy_options::recursive);
  // Inputs that a command makes for itself are named in.*.
  const auto files = [&] {
    std::vector<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(folder.path())) {
      const std::string name = entry.path().filename();
      if (!name.starts_with("in.")) names.push_back(name);
    }
    return names.size();
  };
  const std::size_t before = files();
  const Outcome outcome = shell(GetParam().command, folder.path());
  EXPECT_EQ(outcome.exit, GetParam().exit) << outcome.err;
  std::string message = outcome.err;
  if (message.ends_with('\n')) message.pop_back();
  EXPECT_TRUE(matches(message, GetParam().message))
      << "cases.txt:" << GetParam().line << "\nexpected: " << GetParam().message << "\n     got: " << message;
  EXPECT_EQ(files(), before) << "something was left behind";
}

INSTANTIATE_TEST_SUITE_P(Cases, Errors, testing::ValuesIn(read_cases()),
                         [](const auto& tested) { return "line" + std::to_string(tested.param.line); });

}  // namespace
}  // namespace stagecraft
