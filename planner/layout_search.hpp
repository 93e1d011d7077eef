// The best layouts of a space, by branch and bound over the step model; exact.
//
// What is cut can hold nothing that belongs into the result, by facts that tests hold the step model to: a step takes
// no less than its blocks' computation and inner communication; overlap never costs time or memory; with the
// activations on the device, recomputing more blocks never saves time nor costs memory; and from ZeRO 1 on neither the
// next stage nor, from 2 on, offloading activations saves time. The result is that of judging every point, for any
// number of threads.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "planner/layout_space.hpp"
#include "planner/objective.hpp"

namespace stagecraft {

struct JudgedLayout {
  ParallelLayout layout;
  StepEstimate estimate;
};

struct LayoutSearchOptions {
  LayoutObjective objective = LayoutObjective::time;  // cost: devices x time, as all devices cost the same
  std::size_t keep = 20;
  std::size_t near_misses = 5;
  bool front = false;  // find the Pareto front of time and memory as well
  // Leaves out of the front what another point beats but for this share of its time and memory; 0: exact.
  double front_tolerance = 0;
  unsigned threads = 0;  // 0: as many as the machine has
};

// Points by what became of them; they add up to the space.
struct LayoutCounts {
  std::int64_t points = 0;
  std::int64_t judged = 0;         // estimated
  std::int64_t slower_widths = 0;  // cut: with these widths even the computation alone takes longer than the best
  std::int64_t slower = 0;         // cut: with this micro-batch, order or shape the step takes longer than the best
  std::int64_t too_large = 0;      // cut: does not fit, however much is recomputed
  std::int64_t dominated = 0;      // cut: overlaps less or recomputes more than a point that is no worse
  std::int64_t sum() const { return judged + slower_widths + slower + too_large + dominated; }
  LayoutCounts& operator+=(const LayoutCounts& other);
  bool operator==(const LayoutCounts&) const = default;
};

struct LayoutResult {
  // Best first. Of layouts with the same widths, micro-batch, stages a rank and schedule only the best is here: they
  // differ in what is tuned last (order, ZeRO, offloading, overlap, recomputation, end stages).
  std::vector<JudgedLayout> best;
  // Faster than the best, but too large; those that lack least first.
  std::vector<JudgedLayout> near_misses;
  // With options.front: no other layout that fits is as fast and as small; fastest first.
  std::vector<JudgedLayout> front;
  LayoutCounts counts;
};

LayoutResult search_layouts(const LayoutSpace& space, const LayoutSearchOptions& options = {});
// The same by judging every point: for tests and for the benchmark beside it.
LayoutResult judge_all_layouts(const LayoutSpace& space, const LayoutSearchOptions& options = {});

// Layouts of which none is as fast and as small and takes as few devices as another, for all of the space's devices,
// half of them, a quarter and so on; most devices first, then fastest. Each number's fastest is exact; for every other
// layout there is one in the front that is at most `tolerance` slower and larger.
std::vector<JudgedLayout> pareto_front(const LayoutSpace& space, double tolerance = 0.01);

// The layout that needs least memory, whether it fits or not: what to tell someone for whom nothing fits.
JudgedLayout smallest_layout(const LayoutSpace& space);

}  // namespace stagecraft
