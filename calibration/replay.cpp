#include "calibration/replay.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <tuple>

#include "models/cost/schedule_forms.hpp"
#include "models/statistics.hpp"

namespace stagecraft {
namespace {

double mean(std::span<const double> values) {
  return values.empty() ? 0 : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// Time by the rule of thumb, but for the constant: FLOPs with recomputation, times 1f1b's bubble.
double rule_of_thumb(const Measurement& m) {
  const StepModel model(m.job, m.machine);
  const double work = 1 / model.mfu(Seconds(1), m.layout.devices());
  const double repeated = m.layout.recompute == Recompute::full ? 4.0 / 3 : 1;
  const double bubble =
      (m.layout.pipeline - 1.0) / (static_cast<double>(m.layout.virtual_stages) * m.layout.microbatches);
  return repeated * (1 + bubble) / work;
}

std::vector<double> ranks_of(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (std::size_t i = 0; i < order.size();) {
    std::size_t end = i + 1;
    while (end < order.size() && values[order[end]] == values[order[i]]) ++end;
    for (std::size_t j = i; j < end; ++j) ranks[order[j]] = static_cast<double>(i + end - 1) / 2;
    i = end;
  }
  return ranks;
}

// Scales the rule of thumb so that half of the rows that are scored lie on either side.
void fit_baseline(std::vector<Replayed>& rows, double mfu_floor) {
  std::vector<double> ratios;
  for (const Replayed& row : rows) {
    if (row.time_error && row.mfu >= mfu_floor) ratios.push_back(*row.measurement->time_s / row.baseline_s);
  }
  const double constant = ratios.empty() ? 1 : median(ratios);
  for (Replayed& row : rows) row.baseline_s *= constant;
}

using Rows = std::vector<const Replayed*>;

ErrorScore time_score(const Rows& rows) {
  std::vector<double> errors;
  for (const Replayed* row : rows) errors.push_back(100 * *row->time_error);
  return score(errors);
}

template <class Key>
std::vector<Part> parts(const Rows& rows, Key key) {
  std::map<decltype(key(*rows.front())), Rows> groups;
  for (const Replayed* row : rows) groups[key(*row)].push_back(row);
  std::vector<Part> result;
  result.reserve(groups.size());
  for (const auto& [name, group] : groups) result.push_back({fmt::format("{}", name), time_score(group)});
  return result;
}

std::vector<double> measured(const Rows& rows) {
  std::vector<double> times;
  for (const Replayed* row : rows) times.push_back(*row->measurement->time_s);
  return times;
}

std::vector<double> predicted(const Rows& rows) {
  std::vector<double> times;
  for (const Replayed* row : rows) times.push_back(row->estimate.time.value());
  return times;
}

std::optional<PlanScore> plan_score(const Rows& rows) {
  std::map<std::string, Rows> groups;
  for (const Replayed* row : rows) {
    const Measurement& m = *row->measurement;
    groups[fmt::format("{} {} {} {} {}", m.model, m.device, m.layout.devices(), m.job.sequence, m.job.global_batch)]
        .push_back(row);
  }
  std::vector<double> regrets, correlations;
  std::vector<PlanGroup> by_group;
  for (const auto& entry : groups) {
    const Rows& group = entry.second;
    if (group.size() < static_cast<std::size_t>(least_group)) continue;
    const std::vector<double> truth = measured(group);
    const std::vector<double> guess = predicted(group);
    // One layout that was measured again and again leaves no choice.
    if (std::all_of(guess.begin(), guess.end(), [&](double time) { return time == guess.front(); })) continue;
    const auto faster = [&](std::size_t a, std::size_t b) {  // what is predicted to fit comes before what is not
      const bool fits[] = {group[a]->estimate.fits, group[b]->estimate.fits};
      return fits[0] != fits[1] ? fits[0] : guess[a] < guess[b];
    };
    std::size_t chosen = 0;
    for (std::size_t i = 1; i < group.size(); ++i) {
      if (faster(i, chosen)) chosen = i;
    }
    regrets.push_back(100 * (truth[chosen] / *std::min_element(truth.begin(), truth.end()) - 1));
    correlations.push_back(rank_correlation(truth, guess));
    const Measurement& m = *group.front()->measurement;
    by_group.push_back({m.model, m.layout.devices(), m.job.sequence, m.job.global_batch, static_cast<int>(group.size()),
                        regrets.back(), correlations.back()});
  }
  if (regrets.empty()) return std::nullopt;
  const auto order = [](const PlanGroup& g) { return std::tie(g.model, g.devices, g.sequence, g.batch); };
  std::sort(by_group.begin(), by_group.end(), [&](const auto& a, const auto& b) { return order(a) < order(b); });
  return PlanScore{std::move(by_group),
                   static_cast<int>(regrets.size()),
                   median(regrets),
                   mean(regrets),
                   *std::max_element(regrets.begin(), regrets.end()),
                   mean(correlations)};
}

std::optional<ErrorScore> memory_score(const std::vector<Replayed>& rows) {
  std::vector<double> errors;
  for (const Replayed& row : rows) {
    if (row.memory_error) errors.push_back(100 * *row.memory_error);
  }
  if (errors.empty()) return std::nullopt;
  return score(errors);
}

std::optional<FitScore> fit_score(const std::vector<Replayed>& rows) {
  FitScore fits;
  bool any = false;
  for (const Replayed& row : rows) {
    const bool fitted = row.measurement->status == RunStatus::ok;
    if (row.measurement->status == RunStatus::failed) continue;
    any |= !fitted;
    ++fits.rows;
    fits.right += fitted == row.estimate.fits;
    fits.missed += !fitted && row.estimate.fits;
    fits.false_alarms += fitted && !row.estimate.fits;
  }
  return any ? std::optional(fits) : std::nullopt;
}

}  // namespace

double mfu_floor_of(std::string_view source) {
  if (source.starts_with("nanotron") || source.starts_with("hagemann")) return 0.05;
  return source.starts_with("vtrain_a100_single") ? 0.10 : 0;
}

double measured_mfu(const Measurement& m) {
  return m.mfu ? *m.mfu : StepModel(m.job, m.machine).mfu(Seconds(*m.time_s), m.layout.devices());
}

ErrorScore score(std::span<const double> errors) {
  ErrorScore result;
  result.rows = static_cast<int>(errors.size());
  if (errors.empty()) return result;
  std::vector<double> sizes;
  for (const double error : errors) {
    sizes.push_back(std::abs(error));
    if (std::abs(error) > std::abs(result.worst_pct)) result.worst_pct = error;
  }
  result.mape_pct = mean(sizes);
  result.bias_pct = mean(errors);
  result.median_pct = median(sizes);
  return result;
}

PublishedErrors published_errors(std::span<const SourceScore> scores, std::string_view device) {
  std::vector<double> times, memories;
  for (const SourceScore& source : scores) {
    for (const Replayed& row : source.rows) {
      if (row.measurement->device != device) continue;
      if (row.time_error && row.mfu >= source.mfu_floor) times.push_back(std::abs(*row.time_error));
      if (row.memory_error) memories.push_back(std::abs(*row.memory_error));
    }
  }
  const auto sum_up = [](const std::vector<double>& sizes) {
    PublishedErrors::Of errors{static_cast<int>(sizes.size())};
    if (sizes.empty()) return errors;
    const auto within = [&](double share) { return std::round(1000 * percentile(sizes, share)) / 10; };
    errors.median = within(0.5);
    errors.nine_in_ten = within(0.9);
    return errors;
  };
  return {sum_up(times), sum_up(memories)};
}

double rank_correlation(std::span<const double> a, std::span<const double> b) {
  const std::vector<double> x = ranks_of(a);
  const std::vector<double> y = ranks_of(b);
  const double middle = (static_cast<double>(a.size()) - 1) / 2;
  double xy = 0, xx = 0, yy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - middle) * (y[i] - middle);
    xx += (x[i] - middle) * (x[i] - middle);
    yy += (y[i] - middle) * (y[i] - middle);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 1;
}

Replayed replay(const Measurement& m) {
  Replayed row{&m};
  const StepModel model(m.job, m.machine);
  row.estimate = model.estimate(m.layout);
  const StageMemory& memory = row.estimate.memory;
  row.memory_bytes = memory.total() - (m.memory_kind == MemoryKind::allocated ? memory.reserved : 0);
  row.baseline_s = rule_of_thumb(m);
  if (m.status != RunStatus::ok) return row;
  if (m.time_s) {
    row.time_error = row.estimate.time.value() / *m.time_s - 1;
    row.mfu = measured_mfu(m);
  }
  if (m.memory_bytes) row.memory_error = row.memory_bytes / *m.memory_bytes - 1;
  return row;
}

SourceScore replay(const MeasurementTable& table) {
  SourceScore result;
  result.source = table.source;
  result.skipped = table.skipped;
  result.mfu_floor = mfu_floor_of(table.source);
  for (const Measurement& measurement : table.measurements) result.rows.push_back(replay(measurement));
  fit_baseline(result.rows, result.mfu_floor);
  Rows above, below;
  for (const Replayed& row : result.rows) {
    if (row.time_error) (row.mfu >= result.mfu_floor ? above : below).push_back(&row);
  }
  result.time = time_score(above);
  result.below_floor = time_score(below);
  std::vector<double> baseline;
  for (const Replayed* row : above) baseline.push_back(100 * (row->baseline_s / *row->measurement->time_s - 1));
  result.baseline = score(baseline);
  result.rank_correlation = rank_correlation(measured(above), predicted(above));
  Rows all = above;
  all.insert(all.end(), below.begin(), below.end());
  result.plans = plan_score(all);
  result.memory = memory_score(result.rows);
  result.fits = fit_score(result.rows);
  if (!above.empty()) {
    result.by_precision = parts(above, [](const Replayed& row) { return name(row.measurement->job.precision); });
    result.by_model = parts(above, [](const Replayed& row) { return row.measurement->model; });
    result.by_devices = parts(above, [](const Replayed& row) { return row.measurement->layout.devices(); });
  }
  return result;
}

}  // namespace stagecraft
