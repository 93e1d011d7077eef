#include "models/units.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <span>

namespace stagecraft {
namespace {

struct Unit {
  std::string_view name;
  double scale;
};

constexpr double KiB = 1024.0;
constexpr std::array seconds_units{Unit{"s", 1}, Unit{"ms", 1e-3}, Unit{"us", 1e-6}, Unit{"ns", 1e-9}};
constexpr std::array bytes_units{Unit{"B", 1},
                                 Unit{"kB", 1e3},
                                 Unit{"KB", 1e3},
                                 Unit{"MB", 1e6},
                                 Unit{"GB", 1e9},
                                 Unit{"TB", 1e12},
                                 Unit{"KiB", KiB},
                                 Unit{"MiB", KiB* KiB},
                                 Unit{"GiB", KiB* KiB* KiB},
                                 Unit{"TiB", KiB* KiB* KiB* KiB}};
constexpr std::array byte_rate_units{
    Unit{"B/s", 1},        Unit{"kB/s", 1e3},     Unit{"MB/s", 1e6},       Unit{"GB/s", 1e9},
    Unit{"TB/s", 1e12},    Unit{"KiB/s", KiB},    Unit{"MiB/s", KiB* KiB}, Unit{"GiB/s", KiB* KiB* KiB},
    Unit{"b/s", 0.125},    Unit{"kb/s", 0.125e3}, Unit{"Mb/s", 0.125e6},   Unit{"Gb/s", 0.125e9},
    Unit{"Tb/s", 0.125e12}};
constexpr std::array flop_rate_units{Unit{"FLOP/s", 1},    Unit{"kFLOP/s", 1e3},  Unit{"MFLOP/s", 1e6},
                                     Unit{"GFLOP/s", 1e9}, Unit{"TFLOP/s", 1e12}, Unit{"PFLOP/s", 1e15},
                                     Unit{"EFLOP/s", 1e18}};

std::optional<double> parse(std::string_view text, std::span<const Unit> units) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !std::isfinite(number) || number < 0) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  for (const Unit& unit : units) {
    if (text == unit.name) {
      const double value = number * unit.scale;
      return std::isfinite(value) ? std::optional(value) : std::nullopt;
    }
  }
  return std::nullopt;
}

// Three significant digits without an exponent: 1.23, 12.3, 123, 1234.
std::string three_digits(double value) {
  const double size = std::abs(value);
  if (size >= 99.95) return fmt::format("{:.0f}", value);
  return size >= 9.995 ? fmt::format("{:.1f}", value) : fmt::format("{:.2f}", value);
}

std::string with_prefix(double value, std::string_view unit) {
  constexpr std::array<std::string_view, 7> prefixes{"", "k", "M", "G", "T", "P", "E"};
  std::size_t i = 0;
  while (i + 1 < prefixes.size() && std::abs(value) >= 999.5) value /= 1000, ++i;
  return fmt::format("{} {}{}", three_digits(value), prefixes[i], unit);
}

}  // namespace

std::optional<Seconds> parse_seconds(std::string_view text) {
  const auto value = parse(text, seconds_units);
  return value ? std::optional(Seconds(*value)) : std::nullopt;
}

std::optional<Bytes> parse_bytes(std::string_view text) {
  const auto value = parse(text, bytes_units);
  return value ? std::optional(Bytes(*value)) : std::nullopt;
}

std::optional<BytesPerSecond> parse_bytes_per_second(std::string_view text) {
  const auto value = parse(text, byte_rate_units);
  return value ? std::optional(BytesPerSecond(*value)) : std::nullopt;
}

std::optional<FlopsPerSecond> parse_flops_per_second(std::string_view text) {
  const auto value = parse(text, flop_rate_units);
  return value ? std::optional(FlopsPerSecond(*value)) : std::nullopt;
}

std::string to_string(Seconds time) {
  const double value = std::abs(time.value());
  if (value == 0) return "0 s";
  if (value < 0.9995e-6) return three_digits(time.value() * 1e9) + " ns";
  if (value < 0.9995e-3) return three_digits(time.value() * 1e6) + " us";
  if (value < 0.9995) return three_digits(time.value() * 1e3) + " ms";
  return three_digits(time.value()) + " s";
}

std::string to_string(Bytes bytes) {
  constexpr std::array<std::string_view, 6> prefixes{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = bytes.value();
  std::size_t i = 0;
  while (i + 1 < prefixes.size() && std::abs(value) >= 1023.5) value /= KiB, ++i;
  return fmt::format("{} {}", i == 0 ? fmt::format("{:.0f}", value) : three_digits(value), prefixes[i]);
}

std::string to_string(Flops flops) { return with_prefix(flops.value(), "FLOP"); }
std::string to_string(BytesPerSecond rate) { return with_prefix(rate.value(), "B/s"); }
std::string to_string(FlopsPerSecond rate) { return with_prefix(rate.value(), "FLOP/s"); }

std::string to_exact_string(Seconds time) { return fmt::format("{} s", time.value()); }
std::string to_exact_string(Bytes bytes) {
  const double value = bytes.value();
  for (auto [name, scale] : {Unit{"GiB", KiB * KiB * KiB}, Unit{"MiB", KiB * KiB}}) {
    if (value >= scale && std::fmod(value, scale) == 0) return fmt::format("{} {}", value / scale, name);
  }
  return fmt::format("{} B", value);
}
std::string to_exact_string(BytesPerSecond rate) { return fmt::format("{} B/s", rate.value()); }
std::string to_exact_string(FlopsPerSecond rate) { return fmt::format("{} FLOP/s", rate.value()); }

}  // namespace stagecraft
