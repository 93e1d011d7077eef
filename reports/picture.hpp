// One step of a trace as boxes on rows, and their SVG: shared by the stand-alone pictures and the HTML report.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "models/schedule/schedule.hpp"
#include "models/trace.hpp"

namespace stagecraft {

struct PictureBox {
  int row = 0;
  Action action;
  double start = 0, end = 0;  // seconds since the start of the step
  double bytes = 0;
  int chunk = 0;  // which of its rank's stages, from 0
};

struct Picture {
  std::vector<std::string> rows;  // labels: Trace::row_name()
  std::vector<PictureBox> boxes;  // by row, then start
  int step = 0;
  double end = 0;    // seconds
  std::string note;  // what was left out; empty when nothing
};

// The step, or the one whose length is nearest the median of all (-1). More boxes or rows than allowed: whole
// replicas are left out, then ranks evenly (first and last kept), then the latest boxes.
// Throws bad_input when the trace has no such step. REQUIRES: at least one event.
Picture make_picture(const Trace& trace, int step, std::size_t max_rows, std::size_t max_boxes);

// Where things are, in pixels of the SVG's own coordinates.
struct PictureLayout {
  double width = 1200;
  double gutter = 76;      // row labels, left
  double end = 1;          // seconds at the right edge
  bool unitless = false;   // the time axis counts units instead of seconds
  double row_height = 26;  // compute above, messages and reductions in a thin lane below
  double plot_width() const { return width - gutter - 8; }
};
PictureLayout layout_for(const Picture& picture, double width, double end);
double rows_height(const Picture& picture, const PictureLayout& layout);

// Row labels, row grounds, boxes with titles, and micro-batch numbers, from `top` downwards.
void append_rows(std::string& out, const Picture& picture, const PictureLayout& layout, double top);
// Ticks and their labels below the rows, 22 pixels high, with grid lines up to `top`.
void append_axis(std::string& out, const PictureLayout& layout, double top, double bottom);
// A box and a word for every kind that occurs; `y` is the base line. Returns where it ends.
double append_legend(std::string& out, const std::vector<const Picture*>& pictures, double x, double y);

// CSS of the classes used above, with light and dark colours.
std::string_view picture_style();

// The CSS class of a kind, "f"; kinds that look alike share one.
std::string_view css_class(ActionKind kind);
// For people: "forward", "backward", "send".
std::string_view kind_name(ActionKind kind);

}  // namespace stagecraft
