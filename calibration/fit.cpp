#include "calibration/fit.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <variant>

#include "calibration/replay.hpp"

namespace stagecraft {
namespace {

// To three significant digits: more would be noise, and files are read by people.
double rounded(double value) { return std::stod(fmt::format("{:.3g}", value)); }

constexpr double wrong_label = 0.1;  // besides how far memory is from the capacity

constexpr double whole_source = 12;  // sources of fewer rows weigh less, or single rows would decide

struct FitRow {
  std::variant<Measurement, KernelMeasurement, CollectiveMeasurement> measurement;
  double time = 0, memory = 0, label = 0;  // weights; zero where not measured
  double loss = 0;
};

// One constant of one preset: where it stands, where it starts, what it may be, and the rows that depend on it.
struct Knob {
  const void* preset = nullptr;
  double* value = nullptr;
  std::vector<double*> followers = {};  // the same constant of devices that are like this one
  double start = 0;
  double least = 0, most = 0;
  double step = 0;  // relative
  std::vector<std::size_t> rows;

  void set(double to) {
    *value = to;
    for (double* follower : followers) *follower = to;
  }
};

class Search {
 public:
  Search(std::span<const MeasurementTable> tables, const Microbenchmarks& micro, Presets presets,
         const RowFilter& takes_part, const FitOptions& options)
      : options_(options), presets_(std::move(presets)) {
    for (std::size_t t = 0; t < tables.size(); ++t) add_rows(tables[t], t, takes_part);
    add_microbenchmarks(micro.kernels);
    add_microbenchmarks(micro.collectives);
    for (DevicePreset& p : presets_.devices) {
      add_knobs(p, [&](const FitRow& row) { return device_of(row) == p.type.name; });
    }
    for (FabricPreset& p : presets_.fabrics) {
      add_knobs(p, [&](const FitRow& row) { return fabric_of(row) == p.name; });
    }
    for (FrameworkPreset& p : presets_.frameworks) {
      add_knobs(p, [&](const FitRow& row) {
        const auto* m = std::get_if<Measurement>(&row.measurement);
        return m != nullptr && m->framework == p.name;
      });
    }
  }

  FitResult run() {
    FitResult result;
    result.before = measure(options_.largest_factor);
    for (Knob& knob : knobs_) knob.set(knob.start);
    double least = settle(knobs_);
    std::vector<double> best = values();
    const auto keep_or_return = [&](double sum) {
      if (sum < least) {
        least = sum;
        best = values();
      } else {
        set(best);
      }
    };
    // The search ends where no single constant helps: from elsewhere it may end in a better place. Constants of one
    // preset stand for one another most.
    for (int round = 0; round < options_.leaps; ++round) {
      for (const std::span<Knob> preset : presets_of_knobs()) {
        leap(preset);
        keep_or_return(settle(preset));
      }
      keep_or_return(settle(knobs_));
      if (options_.progress) options_.progress(round + 1, options_.leaps, least);
    }
    for (Knob& knob : knobs_) knob.set(rounded(*knob.value));
    result.after = measure(options_.largest_factor);
    result.evaluations = evaluations_;
    result.presets = std::move(presets_);
    return result;
  }

 private:
  // Goes to where no change of one of these constants helps; returns the objective there.
  double settle(std::span<Knob> knobs) {
    // First with every error counting in full, so that far rows pull; then without the pull of rows that stay far.
    for (const double factor : {options_.first_factor, options_.largest_factor}) {
      measure(factor);
      for (Knob& knob : knobs) {
        scan(knob);
        knob.step = options_.first_step;
      }
      for (int round = 0; round < options_.rounds; ++round) {
        bool moved = false;
        for (Knob& knob : knobs) moved |= improve(knob);
        if (!moved) break;
      }
    }
    return total();
  }

  // Moves about half of these constants: by a factor of up to three, or to anywhere that scan() looks at.
  void leap(std::span<Knob> knobs) {
    const auto uniform = [&] { return static_cast<double>(random_() >> 11) * 0x1p-53; };  // the same everywhere
    for (Knob& knob : knobs) {
      const double chance = uniform(), way = uniform();
      if (chance >= 0.5) continue;
      const double value = chance < 0.25 ? *knob.value * std::pow(3.0, 2 * way - 1) : knob.most * std::exp2(-13 * way);
      knob.set(std::clamp(value, knob.least, knob.most));
    }
  }

  // Knobs of a preset lie side by side.
  std::vector<std::span<Knob>> presets_of_knobs() {
    std::vector<std::span<Knob>> presets;
    for (auto first = knobs_.begin(); first != knobs_.end();) {
      const auto last =
          std::find_if(first, knobs_.end(), [&](const Knob& knob) { return knob.preset != first->preset; });
      presets.emplace_back(first, last);
      first = last;
    }
    return presets;
  }

  std::vector<double> values() const {
    std::vector<double> values;
    for (const Knob& knob : knobs_) values.push_back(*knob.value);
    return values;
  }

  void set(const std::vector<double>& values) {
    for (std::size_t i = 0; i < values.size(); ++i) knobs_[i].set(values[i]);
  }

  static const std::string& device_of(const FitRow& row) {
    return std::visit([](const auto& m) -> const std::string& { return m.device; }, row.measurement);
  }

  static std::string fabric_of(const FitRow& row) {
    if (const auto* m = std::get_if<Measurement>(&row.measurement)) return m->fabric;
    if (const auto* c = std::get_if<CollectiveMeasurement>(&row.measurement)) return c->fabric;
    return {};
  }

  // Each device's, and each fabric's, as a source.
  template <class Microbenchmark>
  void add_microbenchmarks(const std::vector<Microbenchmark>& measurements) {
    std::map<std::string, double> counts;
    const std::size_t first = rows_.size();
    for (const Microbenchmark& m : measurements) {
      rows_.push_back({m});
      ++counts[device_of(rows_.back()) + fabric_of(rows_.back())];
    }
    for (std::size_t i = first; i < rows_.size(); ++i) {
      rows_[i].time = 1 / std::max(whole_source, counts[device_of(rows_[i]) + fabric_of(rows_[i])]);
    }
  }

  void add_rows(const MeasurementTable& table, std::size_t index, const RowFilter& takes_part) {
    const double floor = mfu_floor_of(table.source);
    const std::size_t first = rows_.size();
    double times = 0, memories = 0, labels = 0;
    const bool labelled = std::any_of(table.measurements.begin(), table.measurements.end(),
                                      [](const Measurement& m) { return m.status == RunStatus::out_of_memory; });
    for (std::size_t i = 0; i < table.measurements.size(); ++i) {
      const Measurement& m = table.measurements[i];
      if (m.status == RunStatus::failed || !takes_part(index, i)) continue;
      FitRow row{.measurement = m};
      const bool ran = m.status == RunStatus::ok;
      times += row.time = ran && m.time_s && measured_mfu(m) >= floor;
      memories += row.memory = ran && m.memory_bytes.has_value();
      labels += row.label = labelled;
      rows_.push_back(row);
    }
    for (std::size_t i = first; i < rows_.size(); ++i) {
      FitRow& row = rows_[i];
      row.time /= std::max(whole_source, times);
      row.memory /= std::max(whole_source, memories);
      row.label /= std::max(whole_source, labels);
    }
  }

  template <class Preset, class Uses>
  void add_knobs(Preset& preset, Uses uses) {
    std::vector<std::size_t> rows;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      if (uses(rows_[i])) rows.push_back(i);
    }
    using Constants = decltype(preset.constants);
    for (const NamedConstant<Constants>& constant : constant_table<Constants>()) {
      if (std::find(preset.fitted.begin(), preset.fitted.end(), constant.name) == preset.fitted.end()) continue;
      Knob& knob = knobs_.emplace_back(Knob{.preset = &preset,
                                            .value = &(preset.constants.*constant.member),
                                            .start = Constants{}.*constant.member,
                                            .least = constant.least,
                                            .most = constant.most,
                                            .step = options_.first_step,
                                            .rows = rows});
      if constexpr (std::is_same_v<Preset, DevicePreset>) add_followers(preset, constant, knob);
      if (knob.rows.empty()) knobs_.pop_back();
    }
  }

  void add_followers(const DevicePreset& preset, const NamedConstant<DeviceConstants>& constant, Knob& knob) {
    for (DevicePreset& other : presets_.devices) {
      if (other.like != preset.type.name || other.names(constant.name)) continue;
      knob.followers.push_back(&(other.constants.*constant.member));
      for (std::size_t i = 0; i < rows_.size(); ++i) {
        if (device_of(rows_[i]) == other.type.name) knob.rows.push_back(i);
      }
    }
  }

  double loss(FitRow& row) {
    ++evaluations_;
    return std::visit([&](auto& measurement) { return loss(row, measurement); }, row.measurement);
  }

  template <class Microbenchmark>
  double loss(const FitRow& row, const Microbenchmark& measurement) {
    return row.time * capped(std::log(ratio(measurement, presets_)));
  }

  double loss(const FitRow& row, Measurement& m) {
    set_machine(presets_, m);
    const Replayed replayed = replay(m);
    double loss = 0;
    if (row.time > 0) loss += row.time * capped(std::log(1 + *replayed.time_error));
    if (row.memory > 0) loss += row.memory * capped(std::log(1 + *replayed.memory_error));
    if (row.label > 0) {
      const double full = std::log(replayed.estimate.memory.total() / m.machine.device.memory.value());
      const double wrong = m.status == RunStatus::ok ? full : -full;
      if (wrong > 0) loss += row.label * (wrong_label + capped(wrong));
    }
    return loss;
  }

  double capped(double logarithm) const { return std::min(std::abs(logarithm), std::log(factor_)); }

  // The objective with errors up to this factor.
  double measure(double factor) {
    factor_ = factor;
    for (FitRow& row : rows_) row.loss = loss(row);
    return total();
  }

  double total() const {
    double sum = 0;
    for (const FitRow& row : rows_) sum += row.loss;
    return sum;
  }

  // Takes the value if it lowers the objective; else the constant stays.
  bool accept(Knob& knob, double value) {
    const double old = *knob.value;
    knob.set(std::clamp(value, knob.least, knob.most));
    if (*knob.value == old) return false;
    double now = 0, then = 0;
    std::vector<double> losses;
    for (const std::size_t i : knob.rows) {
      now += rows_[i].loss;
      then += losses.emplace_back(loss(rows_[i]));
    }
    if (then >= now) return knob.set(old), false;
    for (std::size_t i = 0; i < losses.size(); ++i) rows_[knob.rows[i]].loss = losses[i];
    return true;
  }

  // The whole range, a factor apart: many constants do nothing until they are large (the longer of two times counts).
  void scan(Knob& knob) {
    for (double share = 1; share > 1e-4; share /= 2) accept(knob, share * knob.most);
  }

  // A step up or a step down; where neither is better, the next is half as long. False when the steps have become
  // small.
  bool improve(Knob& knob) {
    if (knob.step < options_.last_step) return false;
    // A constant at or near zero moves by a hundredth of its range.
    const double width = std::max(*knob.value, 0.01 * knob.most);
    const bool better = accept(knob, *knob.value + knob.step * width) || accept(knob, *knob.value - knob.step * width);
    knob.step *= better ? 1.3 : 0.5;
    return true;
  }

  FitOptions options_;
  double factor_ = 1;
  Presets presets_;
  std::vector<FitRow> rows_;
  std::vector<Knob> knobs_;
  std::mt19937_64 random_{1};
  std::int64_t evaluations_ = 0;
};

}  // namespace

FitResult fit(std::span<const MeasurementTable> tables, const Microbenchmarks& microbenchmarks, const Presets& presets,
              const RowFilter& takes_part, const FitOptions& options) {
  return Search(tables, microbenchmarks, presets, takes_part, options).run();
}

}  // namespace stagecraft
