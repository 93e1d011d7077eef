#include "reports/chart.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <vector>

namespace stagecraft {
namespace {

constexpr double width = 1200, height = 280, left = 62, right = 14, top = 12, bottom = 34;
constexpr std::size_t max_points = 800, smooth_above = 40;

struct Point {
  double step = 0, loss = 0;  // loss may be NaN
};

std::vector<Point> averaged(std::span<const double> losses) {
  const std::size_t bucket = (losses.size() + max_points - 1) / max_points;
  std::vector<Point> points;
  for (std::size_t first = 0; first < losses.size(); first += bucket) {
    const std::size_t last = std::min(first + bucket, losses.size());
    double sum = 0;
    for (std::size_t i = first; i < last; ++i) sum += losses[i];
    points.push_back({static_cast<double>(first + last - 1) / 2 + 1, sum / static_cast<double>(last - first)});
  }
  return points;
}

std::vector<Point> moving_mean(const std::vector<Point>& points) {
  const std::size_t reach = std::max<std::size_t>(2, points.size() / 40);
  std::vector<Point> means;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const std::size_t first = i < reach ? 0 : i - reach, last = std::min(i + reach + 1, points.size());
    double sum = 0;
    int count = 0;
    for (std::size_t j = first; j < last; ++j) {
      if (std::isfinite(points[j].loss)) sum += points[j].loss, ++count;
    }
    means.push_back({points[i].step, count > 0 ? sum / count : std::nan("")});
  }
  return means;
}

}  // namespace

double nice_step(double range, double count) {
  const double rough = range / count;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  const double lead = rough / power;
  return power * (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10);
}

std::string loss_svg(std::span<const double> losses) {
  const std::vector<Point> points = averaged(losses);
  double low = std::numeric_limits<double>::infinity(), high = -low;
  std::size_t numbers = 0;
  for (const Point& point : points) {
    if (!std::isfinite(point.loss)) continue;
    low = std::min(low, point.loss), high = std::max(high, point.loss), ++numbers;
  }
  if (numbers < 2) return {};
  if (high - low < 1e-12 * std::max(1.0, std::abs(high))) low -= 0.5, high += 0.5;
  const double tick = nice_step(high - low, 5);
  low = std::floor(low / tick) * tick, high = std::ceil(high / tick) * tick;
  const auto steps = static_cast<double>(losses.size());
  const auto x_of = [&](double step) { return left + (step - 1) / (steps - 1) * (width - left - right); };
  const auto y_of = [&](double loss) { return top + (high - loss) / (high - low) * (height - top - bottom); };

  std::string out = fmt::format(
      "<svg class=\"pic wide\" viewBox=\"0 0 {:g} {:g}\" role=\"img\" aria-label=\"loss by step\">\n<g "
      "class=\"axis\">\n",
      width, height);
  const auto sink = std::back_inserter(out);
  for (int i = 0; low + i * tick <= high + tick / 2; ++i) {
    const double y = y_of(low + i * tick);
    // Adding 0.0 turns a negative zero into a plain one.
    fmt::format_to(sink,
                   "<line x1=\"{:g}\" x2=\"{:g}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/><text class=\"rl\" x=\"{:g}\" "
                   "y=\"{:.1f}\">{:g}</text>\n",
                   left, width - right, y, y, left - 8, y + 4, std::round((low + i * tick) / tick) * tick + 0.0);
  }
  const double step_tick = std::max(1.0, nice_step(steps, 10));
  for (double step = step_tick; step <= steps; step += step_tick) {
    fmt::format_to(sink, "<text x=\"{:.1f}\" y=\"{:g}\">{:g}</text>\n", x_of(step), height - 14, step);
  }
  fmt::format_to(sink, "<text class=\"rl\" x=\"{:g}\" y=\"{:g}\">step</text>\n</g>\n", left - 8, height - 14);
  const auto draw = [&](const std::vector<Point>& line, std::string_view css) {
    std::string path;
    bool pen_down = false;
    for (const Point& point : line) {
      const bool number = std::isfinite(point.loss);
      if (number)
        fmt::format_to(std::back_inserter(path), "{}{:.1f} {:.1f}", pen_down ? "L" : "M", x_of(point.step),
                       y_of(point.loss));
      pen_down = number;
    }
    fmt::format_to(sink, "<path class=\"{}\" d=\"{}\"/>\n", css, path);
  };
  const bool smooth = points.size() > smooth_above;
  draw(points, smooth ? "raw" : "mean");
  if (smooth) draw(moving_mean(points), "mean");
  return out + "</svg>\n";
}

}  // namespace stagecraft
