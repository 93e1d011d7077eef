#include "calibration/score_svg.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace stagecraft {
namespace {

constexpr double side = 210;   // of a square
constexpr double margin = 46;  // around it
constexpr int columns = 4;

// Names of files: only what could end the markup is replaced.
std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '<' || c == '>' || c == '&' || c == '"' ? '_' : c;
  return out;
}

// One square of the picture.
class Square {
 public:
  Square(const SourceScore& score, double x, double y) : score_(score), x_(x), y_(y) {
    for (const Replayed& row : score.rows) {
      if (!scored(row)) continue;
      for (const double time : {*row.measurement->time_s, row.estimate.time.value()}) {
        least_ = std::min(least_, std::log10(time));
        most_ = std::max(most_, std::log10(time));
      }
    }
    const double room = std::max(0.05, 0.05 * (most_ - least_));
    least_ -= room;
    most_ += room;
  }

  std::string draw() const {
    std::string out =
        fmt::format(R"(<rect class="frame" x="{:.1f}" y="{:.1f}" width="{}" height="{}"/>)", x_, y_, side, side);
    for (const double off : {-std::log10(1.1), 0.0, std::log10(1.1)}) {
      const double from = std::max(least_, least_ - off);
      const double to = std::min(most_, most_ - off);
      out += fmt::format(R"(<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>)",
                         off == 0 ? "equal" : "tenth", across(from), up(from + off), across(to), up(to + off));
    }
    for (const Replayed& row : score_.rows) {
      if (!scored(row)) continue;
      out += fmt::format(R"(<circle cx="{:.1f}" cy="{:.1f}" r="2"/>)", across(std::log10(*row.measurement->time_s)),
                         up(std::log10(row.estimate.time.value())));
    }
    for (int power = static_cast<int>(std::ceil(least_)); power <= most_; ++power) {
      const std::string label = fmt::format("{:g} s", std::pow(10, power));
      out += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>)", across(power), y_ + side + 14,
                         label);
      out += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>)", x_ - 4, up(power) + 4, label);
    }
    return out +
           fmt::format(R"(<text x="{:.1f}" y="{:.1f}">{}: {:.1f} %, {} rows</text>)", x_, y_ - 6,
                       escaped(score_.source), score_.time.mape_pct, score_.time.rows) +
           "\n";
  }

 private:
  bool scored(const Replayed& row) const { return row.time_error && row.mfu >= score_.mfu_floor; }
  double across(double logarithm) const { return x_ + side * (logarithm - least_) / (most_ - least_); }
  double up(double logarithm) const { return y_ + side - side * (logarithm - least_) / (most_ - least_); }

  const SourceScore& score_;
  double x_, y_;
  double least_ = std::numeric_limits<double>::max();
  double most_ = std::numeric_limits<double>::lowest();
};

}  // namespace

std::string to_svg(std::span<const SourceScore> scores) {
  std::string squares;
  int count = 0;
  const double step = side + margin;
  for (const SourceScore& score : scores) {
    if (score.time.rows == 0) continue;
    const int row = count / columns;
    squares += Square(score, margin + step * (count % columns), margin + step * row).draw();
    ++count;
  }
  if (count == 0) return {};
  const double width = margin + step * std::min(count, columns);
  const int rows = (count + columns - 1) / columns;
  const double height = margin + step * rows;
  return fmt::format(
      R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0:.0f} {1:.0f}" width="{0:.0f}" height="{1:.0f}">
<style>
  :root {{ color-scheme: light dark; }}
  text {{ font: 10px sans-serif; fill: #444; }}
  .frame {{ fill: none; stroke: #999; }}
  .equal {{ stroke: #999; }}
  .tenth {{ stroke: #999; stroke-dasharray: 3 3; }}
  circle {{ fill: #2a6fdb; fill-opacity: 0.45; }}
  @media (prefers-color-scheme: dark) {{ text {{ fill: #ccc; }} circle {{ fill: #7fb0ff; }} }}
</style>
<title>Step times, predicted (up) against measured (across); dashed: 10 % off</title>
{2}</svg>
)",
      width, height, squares);
}

}  // namespace stagecraft
