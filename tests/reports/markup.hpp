// Just enough of a parser to tell well-formed markup from broken.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace stagecraft {

inline std::size_t count(std::string_view text, std::string_view part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + part.size())) ++found;
  return found;
}

// The first fault (a tag closed that is not open, a stray '<', text left open), or "". Raw text elements are skipped.
inline std::string fault_of_markup(std::string_view text) {
  static const std::set<std::string, std::less<>> void_elements{"meta", "br", "hr", "img", "input", "link", "col"};
  std::vector<std::string> open;
  std::size_t at = 0;
  while ((at = text.find('<', at)) != std::string_view::npos) {
    if (text.substr(at, 2) == "<!") {
      at = text.find('>', at);
      continue;
    }
    std::size_t end = at + 1;
    for (bool quoted = false; end < text.size() && (quoted || text[end] != '>'); ++end) {
      if (text[end] == '"') quoted = !quoted;
      if (text[end] == '<') return "stray < at " + std::string(text.substr(at, 60));
    }
    if (end >= text.size()) return "unfinished tag " + std::string(text.substr(at, 60));
    const bool closing = text[at + 1] == '/';
    const std::string_view inside = text.substr(at + (closing ? 2 : 1), end - at - (closing ? 2 : 1));
    const std::string name(inside.substr(0, inside.find_first_of(" \n/")));
    at = end + 1;
    if (closing) {
      if (open.empty() || open.back() != name) return "</" + name + "> closes " + (open.empty() ? "" : open.back());
      open.pop_back();
    } else if (inside.back() != '/' && void_elements.count(name) == 0) {
      open.push_back(name);
      if (name == "script" || name == "style") at = text.find("</" + name, at);
      if (at == std::string_view::npos) return name + " is never closed";
    }
  }
  return open.empty() ? "" : open.back() + " is never closed";
}

// The first address that a browser would load, or "". The SVG namespace is a name, not an address.
inline std::string external_reference(std::string_view text) {
  constexpr std::string_view svg_namespace = "http://www.w3.org/2000/svg";
  for (const std::string_view scheme : {"http://", "https://", "src=", "href=", "url(", "@import"}) {
    for (std::size_t at = text.find(scheme); at != std::string_view::npos; at = text.find(scheme, at + 1)) {
      if (text.substr(at, svg_namespace.size()) == svg_namespace) continue;
      if (scheme == "href=" && text.substr(at, 7) == "href=\"#") continue;
      return std::string(text.substr(at, 60));
    }
  }
  return "";
}

}  // namespace stagecraft
