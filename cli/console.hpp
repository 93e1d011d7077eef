// What subcommands share: output, progress, choices by name, and telling files apart.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/error.hpp"
#include "models/json_reader.hpp"
#include "models/plan.hpp"
#include "models/text.hpp"
#include "models/trace.hpp"
#include "reports/comparison.hpp"

namespace stagecraft {

// To standard output; throws bad_input when it cannot be written (a full disk behind a redirection).
void print(std::string_view text);
void print_json(const Json& json);
// To standard error: remarks that are no result, so that piped output stays clean.
void note(std::string_view text);

// One line on a terminal, rewritten in place and wiped at the end; silent elsewhere and in the first second.
class Progress {
 public:
  Progress();
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void show(std::string_view text);

 private:
  bool terminal_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point start_, last_;
};

// Looks `text` up; an error names the option, the value, the nearest name and the list.
template <class T>
T choose(std::string_view option, std::string_view text, std::span<const std::pair<std::string_view, T>> names) {
  std::vector<std::string> known;
  for (const auto& [name, value] : names) {
    if (name == text) return value;
    known.emplace_back(name);
  }
  throw bad_input("{}: expected one of {}, got '{}'{}", option, join(known), printable(text),
                  did_you_mean(text, known));
}

// "none, selective, full" for help texts.
template <class T>
std::string list_of(std::span<const std::pair<std::string_view, T>> names) {
  std::vector<std::string> known;
  for (const auto& [name, value] : names) known.emplace_back(name);
  return join(known);
}

// Checks of options: any finite number above, or from, zero.
CLI::Validator positive_number();
CLI::Validator non_negative_number();

// For options that would be ignored: throws bad_input naming the first that was given, "--x: has no effect" and why.
void refuse_options(const CLI::App& command, std::initializer_list<const char*> options, std::string_view why);

// The files that reports are made of, told apart by their "format" and "source".
struct Documents {
  std::optional<Plan> plan;
  std::vector<Trace> predicted;  // timeline before SimGrid, else in the order given
  std::optional<Trace> measured;
  ComparisonFiles files;
  // What keeps them from being compared: a sentence a pair that names both files and what differs.
  std::vector<std::string> other_networks, other_plans;
};
// Throws bad_input for a second plan or measured trace, and for files that are neither.
Documents load_documents(std::span<const std::string> files);
// Notes what disagrees.
void warn_of_mismatches(const Documents& documents);

// Help within 100 columns: longer descriptions go on below their beginning. Commands stay whole, to be pasted.
class NarrowHelp : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override;
};

// Adds examples below the options of a subcommand's --help.
void set_examples(CLI::App& command, std::string_view examples);

}  // namespace stagecraft
