#include "reports/perfetto.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "models/schedule/schedule.hpp"
#include "models/version.hpp"

namespace stagecraft {
namespace {

constexpr int lanes_per_rank = 1000;      // thread number = rank * lanes_per_rank + lane
constexpr std::size_t event_bytes = 240;  // about what an event takes, with its share of arrows and counters

bool overlaps(ActionKind kind) {
  return is_send(kind) || kind == ActionKind::reduce_tied || kind == ActionKind::reduce_grad;
}

std::string quoted(const std::string& text) { return Json(text).dump(-1, ' ', true, Json::error_handler_t::replace); }

// Appends through a small buffer that stays in the cache: a large trace has some hundred million bytes.
class Writer {
 public:
  explicit Writer(std::size_t bytes) { out_.reserve(bytes); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  template <std::size_t n>
  Writer& text(const char (&literal)[n]) {
    std::memcpy(at_, literal, n - 1);
    at_ += n - 1;
    return *this;
  }
  Writer& text(std::string_view value) {
    if (value.size() + record_bytes > static_cast<std::size_t>(buffer_.data() + buffer_.size() - at_)) flush();
    if (value.size() > buffer_.size() / 2) {
      out_.append(value);
    } else {
      at_ = std::copy(value.begin(), value.end(), at_);
    }
    return *this;
  }
  Writer& number(std::int64_t value) {
    const fmt::format_int digits(value);
    std::memcpy(at_, digits.data(), digits.size());
    at_ += digits.size();
    return *this;
  }
  // Whole nanoseconds as microseconds.
  Writer& microseconds(std::int64_t nanoseconds) {
    if (nanoseconds < 0) *at_++ = '-', nanoseconds = -nanoseconds;
    number(nanoseconds / 1000);
    if (const auto rest = static_cast<int>(nanoseconds % 1000); rest != 0) {
      *at_++ = '.';
      *at_++ = static_cast<char>('0' + rest / 100);
      *at_++ = static_cast<char>('0' + rest / 10 % 10);
      *at_++ = static_cast<char>('0' + rest % 10);
    }
    return *this;
  }
  // Starts a record. Its numbers and literals fit into record_bytes, so they are not checked one by one.
  Writer& begin() {
    if (at_ > buffer_.data() + buffer_.size() - record_bytes) flush();
    if (!first_) *at_++ = ',';
    first_ = false;
    return text("\n{");
  }
  std::string take() { return flush(), std::move(out_); }

 private:
  static constexpr std::size_t record_bytes = 1024;

  void flush() {
    out_.append(buffer_.data(), static_cast<std::size_t>(at_ - buffer_.data()));
    at_ = buffer_.data();
  }

  std::string out_;
  std::array<char, std::size_t{64} << 10U> buffer_;
  char* at_ = buffer_.data();
  bool first_ = true;
};

std::int64_t nanoseconds(double seconds) { return std::llround(seconds * 1e9); }

// Where one rank's threads and its memory stand while its events go by.
struct RankState {
  std::vector<double> lane_ends;  // of the lanes for what overlaps
  double memory = 0;              // bytes, or micro-batches in flight
};

class TraceWriter {
 public:
  TraceWriter(Writer& out, const Trace& trace, const Plan* plan, int first_process, std::int64_t first_flow)
      : out_(out), trace_(trace), first_process_(first_process), first_flow_(first_flow) {
    if (plan != nullptr && static_cast<int>(plan->stages.size()) == trace.stages) plan_ = plan;
    ranks_.resize(static_cast<std::size_t>(trace.rows()));
    if (plan_ != nullptr) {
      for (std::size_t i = 0; i < ranks_.size(); ++i) {
        for (const PlanStage& stage : plan_->stages) {
          const bool here = static_cast<std::size_t>(stage.rank.value) == i % static_cast<std::size_t>(trace.ranks);
          if (here) ranks_[i].memory += stage.cost.peak_memory(0).value();
        }
      }
    }
    for (const TraceEvent& event : trace.events) {
      double& end = offsets_[event.step];
      end = std::max(end, event.end.value());
    }
    double offset = 0;
    int index = 0;
    for (auto& [step, end] : offsets_) {
      const double length = end;
      end = offset;
      offset += length;
      step_index_[step] = index++;
    }
  }

  void write() {
    for (const TraceEvent& event : trace_.events) write_event(event);
    write_names();
  }
  int processes() const { return trace_.replicas * trace_.shards; }
  std::int64_t flows() const {
    return static_cast<std::int64_t>(offsets_.size()) * processes() * 2 * trace_.stages * trace_.microbatches;
  }

 private:
  RankState& rank_of(const TraceEvent& event) { return ranks_[static_cast<std::size_t>(trace_.row_of(event))]; }
  // Each has a shard of all ranks of a replica.
  int process_of(const TraceEvent& event) const { return event.replica * trace_.shards + event.shard; }

  // 0: the rank's own thread. Slices of one thread must not overlap, so each message takes the first free lane.
  int lane_of(const TraceEvent& event) {
    if (!overlaps(event.action.kind)) return 0;
    std::vector<double>& ends = rank_of(event).lane_ends;
    const double start = offset_ + event.start.value(), end = offset_ + event.end.value();
    auto lane = std::find_if(ends.begin(), ends.end(), [&](double lane_end) { return lane_end <= start; });
    if (lane == ends.end()) {
      if (ends.size() + 2 >= lanes_per_rank) return lanes_per_rank - 1;
      lane = ends.insert(ends.end(), end);
    }
    *lane = end;
    return 1 + static_cast<int>(lane - ends.begin());
  }

  void write_event(const TraceEvent& event) {
    if (event.step != step_) {
      step_ = event.step;
      offset_ = offsets_[step_];
    }
    const std::int64_t start = nanoseconds(offset_ + event.start.value());
    const std::int64_t end = std::max(start, nanoseconds(offset_ + event.end.value()));
    const int process = first_process_ + process_of(event);
    const int thread = event.rank.value * lanes_per_rank + lane_of(event);
    out_.begin().text("\"name\":\"").number(event.action.stage.value).text(letters(event.action.kind));
    if (event.action.microbatch.value >= 0) out_.number(event.action.microbatch.value);
    out_.text("\",\"cat\":\"").text(letters(event.action.kind)).text("\",\"ph\":\"X\",\"ts\":").microseconds(start);
    out_.text(",\"dur\":").microseconds(end - start).text(",\"pid\":").number(process).text(",\"tid\":").number(thread);
    out_.text(",\"args\":{\"step\":").number(event.step).text(",\"stage\":").number(event.action.stage.value);
    if (event.action.microbatch.value >= 0) out_.text(",\"microbatch\":").number(event.action.microbatch.value);
    if (event.bytes.value() > 0) out_.text(",\"bytes\":").number(std::llround(event.bytes.value()));
    out_.text("}}");
    if (is_send(event.action.kind)) write_flow("s", event, start, process, thread);
    // An arrow's end binds to the slice around it, so it has to lie inside the wait.
    if (is_receive(event.action.kind)) write_flow("f", event, std::max(start, end - 1), process, thread);
    write_counter(event, start, end, process);
  }

  // Both ends of a message compute the same number from step, process, direction, sending stage and micro-batch.
  void write_flow(std::string_view phase, const TraceEvent& event, std::int64_t at, int process, int thread) {
    const ActionKind kind = event.action.kind;
    const bool forward = kind == ActionKind::send_forward || kind == ActionKind::recv_forward;
    std::int64_t sender = event.action.stage.value;
    if (is_receive(kind)) sender += forward ? -1 : 1;
    std::int64_t id = static_cast<std::int64_t>(step_index_[event.step]) * processes() + process_of(event);
    id = (id * 2 + (forward ? 0 : 1)) * trace_.stages + sender;
    id = id * trace_.microbatches + event.action.microbatch.value + first_flow_;
    out_.begin().text("\"name\":\"message\",\"cat\":\"message\",\"ph\":\"").text(phase);
    out_.text(phase == "f" ? "\",\"bp\":\"e\",\"id\":" : "\",\"id\":").number(id).text(",\"ts\":").microseconds(at);
    out_.text(",\"pid\":").number(process).text(",\"tid\":").number(thread).text("}");
  }

  // A forward starts to keep its stash; the backward, or the weight gradient where they are apart, lets it go.
  void write_counter(const TraceEvent& event, std::int64_t start, std::int64_t end, int process) {
    const ActionKind kind = event.action.kind;
    const bool keeps = kind == ActionKind::forward;
    if (!keeps && kind != ActionKind::backward && kind != ActionKind::backward_weight) return;
    const auto stage = static_cast<std::size_t>(event.action.stage.value);
    const double amount = plan_ == nullptr ? 1 : plan_->stages[stage].cost.stash.value();
    RankState& rank = rank_of(event);
    rank.memory += keeps ? amount : -amount;
    out_.begin().text("\"name\":\"rank ").number(event.rank.value);
    out_.text(plan_ == nullptr ? " in flight" : " memory").text("\",\"ph\":\"C\",\"ts\":");
    out_.microseconds(keeps ? start : end).text(",\"pid\":").number(process);
    out_.text(plan_ == nullptr ? ",\"args\":{\"micro-batches\":" : ",\"args\":{\"bytes\":");
    out_.number(std::llround(rank.memory)).text("}}");
  }

  void write_names() {
    const bool simulated = trace_.source == "timeline" || trace_.source == "simgrid";
    for (int index = 0; index < processes(); ++index) {
      const int process = first_process_ + index;
      std::string name = (simulated ? "predicted: " : "measured: ") + trace_.source;
      if (trace_.replicas > 1) name += fmt::format(", replica {}", index / trace_.shards);
      if (trace_.shards > 1) name += fmt::format(", shard {}", index % trace_.shards);
      write_name("process_name", process, 0, name);
      write_sort_index("process_sort_index", process, 0, process);
      for (int rank = 0; rank < trace_.ranks; ++rank) {
        const int number = index * trace_.ranks + rank;
        const RankState& state = ranks_[static_cast<std::size_t>(number)];
        for (int lane = 0; lane <= static_cast<int>(state.lane_ends.size()); ++lane) {
          const int thread = rank * lanes_per_rank + lane;
          std::string label = fmt::format("rank {}", rank);
          if (lane > 0) label += " in flight";
          if (lane > 1) label += fmt::format(" {}", lane);
          write_name("thread_name", process, thread, label);
          write_sort_index("thread_sort_index", process, thread, thread);
        }
      }
    }
  }

  void write_name(std::string_view what, int process, int thread, const std::string& name) {
    out_.begin().text("\"name\":\"").text(what).text("\",\"ph\":\"M\",\"pid\":").number(process).text(",\"tid\":");
    out_.number(thread).text(",\"args\":{\"name\":").text(quoted(name)).text("}}");
  }
  void write_sort_index(std::string_view what, int process, int thread, int index) {
    out_.begin().text("\"name\":\"").text(what).text("\",\"ph\":\"M\",\"pid\":").number(process).text(",\"tid\":");
    out_.number(thread).text(",\"args\":{\"sort_index\":").number(index).text("}}");
  }

  Writer& out_;
  const Trace& trace_;
  const Plan* plan_ = nullptr;
  int first_process_;
  std::int64_t first_flow_;
  std::map<int, double> offsets_;  // of the steps, one after the other
  std::map<int, int> step_index_;
  std::vector<RankState> ranks_;
  int step_ = -1;
  double offset_ = 0;
};

}  // namespace

std::string to_perfetto(std::span<const Trace> traces, const Plan* plan) {
  std::size_t events = 0;
  for (const Trace& trace : traces) events += trace.events.size();
  Writer out(1024 + events * event_bytes);
  out.text("{\"displayTimeUnit\":\"ms\",\"otherData\":{\"tool\":").text(quoted(std::string("stagecraft ") + version));
  int index = 0;
  for (const Trace& trace : traces) {
    out.text(fmt::format(",\"trace {}\":", ++index));
    out.text(quoted(
        fmt::format("{}; {}; {}; {}; {}", trace.source, trace.network, trace.schedule, trace.machine, trace.date)));
  }
  out.text("},\"traceEvents\":[");
  int process = 1;
  std::int64_t flow = 1;
  for (const Trace& trace : traces) {
    TraceWriter writer(out, trace, plan, process, flow);
    writer.write();
    process += writer.processes();
    flow += writer.flows();
  }
  return out.text("\n]}\n").take();
}

}  // namespace stagecraft
