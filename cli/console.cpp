#include "cli/console.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "models/files.hpp"
#include "reports/text_width.hpp"

namespace stagecraft {

void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw bad_input("standard output: cannot be written: {}", std::strerror(errno));
  }
}

void print_json(const Json& json) { print(json.dump(2) + "\n"); }

void note(std::string_view text) { fmt::print(stderr, "{}\n", text); }

Progress::Progress()
    : terminal_(::isatty(STDERR_FILENO) == 1), start_(std::chrono::steady_clock::now()), last_(start_) {}

Progress::~Progress() {
  if (shown_) fmt::print(stderr, "\r\x1b[K");
}

void Progress::show(std::string_view text) {
  using namespace std::chrono_literals;
  const auto now = std::chrono::steady_clock::now();
  if (!terminal_ || now - start_ < 1s || (shown_ && now - last_ < 100ms)) return;
  last_ = now;
  shown_ = true;
  fmt::print(stderr, "\r\x1b[K{}", text.substr(0, 79));
  std::fflush(stderr);
}

namespace {

CLI::Validator number_check(const char* expected, bool (*is_legal)(double), const char* name) {
  return {[=](std::string& text) {
            double value = 0;
            const bool is_number = CLI::detail::lexical_cast(text, value) && std::isfinite(value);
            return is_number && is_legal(value) ? "" : fmt::format("expected {}, got '{}'", expected, printable(text));
          },
          name};
}

}  // namespace

CLI::Validator positive_number() {
  return number_check(
      "a number above 0", [](double value) { return value > 0; }, "POSITIVE");
}

CLI::Validator non_negative_number() {
  return number_check(
      "a number from 0", [](double value) { return value >= 0; }, "NONNEGATIVE");
}

void refuse_options(const CLI::App& command, std::initializer_list<const char*> options, std::string_view why) {
  for (const char* option : options) {
    if (command.get_option(option)->count() > 0) throw bad_input("{}: has no effect {}", option, why);
  }
}

namespace {

// What a document is of.
struct Origin {
  std::string file, network, plan_digest;
  bool is_plan = false;
};

// Holds every document against one of them: the plan, else the first.
void find_mismatches(const std::vector<Origin>& origins, Documents& documents) {
  const auto plan = std::find_if(origins.begin(), origins.end(), [](const Origin& origin) { return origin.is_plan; });
  const auto reference = plan != origins.end() ? plan : origins.begin();
  const auto differ = [](const std::string& a, const std::string& b) { return !a.empty() && !b.empty() && a != b; };
  const auto plan_of = [](const Origin& origin) {
    return fmt::format("{} {} {}", origin.file, origin.is_plan ? "is plan" : "is of plan",
                       printable(origin.plan_digest));
  };
  for (const Origin& origin : origins) {
    if (differ(reference->network, origin.network)) {
      documents.other_networks.push_back(fmt::format("{} is of network '{}', {} of '{}'", reference->file,
                                                     printable(reference->network), origin.file,
                                                     printable(origin.network)));
    } else if (differ(reference->plan_digest, origin.plan_digest)) {
      documents.other_plans.push_back(plan_of(*reference) + ", " + plan_of(origin));
    }
  }
}

}  // namespace

Documents load_documents(std::span<const std::string> files) {
  Documents documents;
  std::vector<Origin> origins;
  std::vector<std::pair<std::string, Trace>> predicted;
  for (const std::string& file : files) {
    const std::string text = read_file(file, 2ULL << 30);
    const Json json = parse_json(text, file);
    const JsonValue value(json, file);
    JsonObject object = value.object();
    const std::string format = object.required("format").string();
    if (format == "stagecraft-plan") {
      if (documents.plan) throw bad_input("{}: a second plan; expected one", file);
      documents.plan = plan_from_json(value);
      documents.files.plan = file;
      documents.files.plan_digest = digest(text);
      origins.push_back({file, documents.plan->network.name, documents.files.plan_digest, true});
    } else if (format == "stagecraft-trace") {
      Trace trace = trace_from_json(value);
      origins.push_back({file, trace.network, trace.plan_digest});
      if (trace.source == "timeline" || trace.source == "simgrid") {
        predicted.emplace_back(file, std::move(trace));
      } else {
        if (documents.measured) throw bad_input("{}: a second measured trace; expected one", file);
        documents.measured = std::move(trace);
        documents.files.measured = file;
      }
    } else {
      throw object.required("format").expected("'stagecraft-plan' or 'stagecraft-trace'");
    }
  }
  std::stable_partition(predicted.begin(), predicted.end(),
                        [](const auto& entry) { return entry.second.source != "simgrid"; });
  for (auto& [file, trace] : predicted) {
    documents.files.predicted.push_back(file);
    documents.predicted.push_back(std::move(trace));
  }
  find_mismatches(origins, documents);
  return documents;
}

void warn_of_mismatches(const Documents& documents) {
  for (const std::string& text : documents.other_networks) note("warning: not the same network: " + text);
  for (const std::string& text : documents.other_plans) note("warning: not the same plan: " + text);
}

namespace {

// Where the description of a line begins: at the formatter's column, or behind two spaces or more. Later lines of other
// text are indented.
std::size_t description_column(std::string_view line, std::size_t column) {
  constexpr std::size_t widest_name = 40;
  constexpr std::size_t deepest_name = 8;
  const std::size_t text = std::min(line.find_first_not_of(' '), line.size());
  if (text > deepest_name) return text;
  // A name may fill its column.
  if (line.size() > column && line[column - 1] == ' ' && line[column] != ' ') return column;
  const std::size_t gap = line.substr(0, widest_name).rfind("  ");
  return gap == std::string_view::npos || gap < text ? text + 2 : gap + 2;
}

}  // namespace

std::string NarrowHelp::make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const {
  const std::string help = CLI::Formatter::make_help(app, std::move(name), mode);
  std::string out;
  for (std::string_view rest = help; !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size() - 1);
    std::string line(rest.substr(0, end + 1));
    rest.remove_prefix(end + 1);
    const bool is_command = line.find("  stagecraft ") == 0 || line.find("  mpirun ") == 0;
    const std::string indent(description_column(line, get_column_width()), ' ');
    while (!is_command && line.size() > max_columns + 1) {
      const std::size_t cut = line.rfind(' ', max_columns);
      if (cut == std::string::npos || cut <= indent.size()) break;
      out += line.substr(0, cut) + '\n';
      line.replace(0, cut + 1, indent);
    }
    out += line;
  }
  return out;
}

void set_examples(CLI::App& command, std::string_view examples) {
  command.footer("\nExamples:\n" + std::string(examples));
}

}  // namespace stagecraft
