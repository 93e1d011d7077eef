// Small helpers for messages and tables.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace stagecraft {

// The candidate nearest to `name` by edit distance, or empty when none is within a third of its length (at least 2).
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);

// " (did you mean 'x'?)", or empty: ready to append to a message.
std::string did_you_mean(std::string_view name, std::span<const std::string> candidates);

// "a, b, c".
std::string join(std::span<const std::string> items, std::string_view separator = ", ");

// "1,234,567".
std::string with_thousands(long long number);

// The same of the nearest whole number: how every output rounds tokens a second.
std::string rounded_with_thousands(double number);

// "5.6128", "1.23e+06", "nan": at most 8 characters below 1e100.
std::string loss_text(double loss);

// "1 stage", "2 stages", "1,000 micro-batches".
std::string counted(long long count, std::string_view noun);

// Text from a file, made safe to print: control characters escaped, cut to `limit` characters.
std::string printable(std::string_view text, std::size_t limit = 60);

// A table of text: the first row is the heading. Column widths fit the content; numbers are right-aligned when every
// cell below the heading starts with a digit, sign or dash.
std::string format_table(std::span<const std::vector<std::string>> rows);

}  // namespace stagecraft
