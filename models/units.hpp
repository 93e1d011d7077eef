// Physical quantities as types, and their text: "80 GiB", "900 GB/s", "989 TFLOP/s", "1.5 us".
//
// A quantity is a double tagged with its dimension (powers of time, data, work), so that Seconds + Bytes does not
// compile and Bytes / BytesPerSecond is Seconds. Decimal (GB = 10^9) and binary (GiB = 2^30) prefixes are distinct.
#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>

namespace stagecraft {

template <int Time, int Data, int Work>
class Quantity {
 public:
  constexpr Quantity() = default;
  constexpr explicit Quantity(double value) : value_(value) {}
  // In the base unit: seconds, bytes, floating-point operations and their quotients.
  constexpr double value() const { return value_; }

  constexpr auto operator<=>(const Quantity&) const = default;
  constexpr Quantity operator-() const { return Quantity(-value_); }
  constexpr Quantity& operator+=(Quantity other) { return value_ += other.value_, *this; }
  constexpr Quantity& operator-=(Quantity other) { return value_ -= other.value_, *this; }
  constexpr Quantity& operator*=(double factor) { return value_ *= factor, *this; }
  constexpr Quantity& operator/=(double factor) { return value_ /= factor, *this; }
  friend constexpr Quantity operator+(Quantity a, Quantity b) { return a += b; }
  friend constexpr Quantity operator-(Quantity a, Quantity b) { return a -= b; }
  friend constexpr Quantity operator*(Quantity a, double factor) { return a *= factor; }
  friend constexpr Quantity operator*(double factor, Quantity a) { return a *= factor; }
  friend constexpr Quantity operator/(Quantity a, double factor) { return a /= factor; }

 private:
  double value_ = 0;
};

template <int T1, int D1, int W1, int T2, int D2, int W2>
constexpr auto operator*(Quantity<T1, D1, W1> a, Quantity<T2, D2, W2> b) {
  return Quantity<T1 + T2, D1 + D2, W1 + W2>(a.value() * b.value());
}

// A quotient of equal dimensions is a plain double.
template <int T1, int D1, int W1, int T2, int D2, int W2>
constexpr auto operator/(Quantity<T1, D1, W1> a, Quantity<T2, D2, W2> b) {
  if constexpr (T1 == T2 && D1 == D2 && W1 == W2) {
    return a.value() / b.value();
  } else {
    return Quantity<T1 - T2, D1 - D2, W1 - W2>(a.value() / b.value());
  }
}

using Seconds = Quantity<1, 0, 0>;
using Bytes = Quantity<0, 1, 0>;
using Flops = Quantity<0, 0, 1>;  // floating-point operations, an amount
using BytesPerSecond = Quantity<-1, 1, 0>;
using FlopsPerSecond = Quantity<-1, 0, 1>;

// Parse a number followed by a unit. Empty when the text has no unit, an unknown unit, a negative, infinite or NaN
// number, or trailing text. Bit units ("400 Gb/s") are accepted for rates, as network hardware is sold in them.
std::optional<Seconds> parse_seconds(std::string_view text);                  // "1.5 us", "10 ms", "2 s"
std::optional<Bytes> parse_bytes(std::string_view text);                      // "80 GiB", "16 MB", "512 B"
std::optional<BytesPerSecond> parse_bytes_per_second(std::string_view text);  // "900 GB/s", "400 Gb/s"
std::optional<FlopsPerSecond> parse_flops_per_second(std::string_view text);  // "989 TFLOP/s"

// For people: three significant digits and the prefix that fits, e.g. "12.3 ms", "1.50 GiB", "900 GB/s".
std::string to_string(Seconds);
std::string to_string(Bytes);  // binary prefixes
std::string to_string(Flops);
std::string to_string(BytesPerSecond);
std::string to_string(FlopsPerSecond);

// For files that people edit: the shortest decimal text with a unit that parses back to the same value.
std::string to_exact_string(Seconds);
std::string to_exact_string(Bytes);
std::string to_exact_string(BytesPerSecond);
std::string to_exact_string(FlopsPerSecond);

}  // namespace stagecraft
