#include "sim/simgrid_communications.hpp"

#include <utility>

namespace stagecraft {

namespace sg = simgrid::s4u;

Communications::Communications(std::function<void(std::size_t)> on_end) : on_end_(std::move(on_end)) {
  sg::Activity::on_completion_cb([this](const sg::Activity& activity) {
    const std::size_t number = reinterpret_cast<std::uintptr_t>(activity.get_data<void>()) - 1;
    ended_.push_back(number);
    on_end_(number);
  });
  // SimGrid is not done with a communication before it has returned from the callback.
  sg::Engine::on_time_advance_cb([this](double) {
    for (const std::size_t number : ended_) ways_[communications_[number].way].idle.push_back(number);
    ended_.clear();
  });
}

std::size_t Communications::way(sg::Host* from, sg::Host* to) {
  const auto [entry, is_new] = numbers_.try_emplace({from, to}, ways_.size());
  if (is_new) ways_.push_back({from, to, {}});
  return entry->second;
}

std::size_t Communications::reserve(std::size_t way) {
  auto& idle = ways_[way].idle;
  if (!idle.empty()) {
    const std::size_t number = idle.back();
    idle.pop_back();
    return number;
  }
  const std::size_t number = communications_.size();
  const sg::CommPtr comm = communications_.emplace_back(Communication{sg::Comm::sendto_init(), way}).comm;
  // A number in place of a pointer; null means none. NOLINTNEXTLINE(performance-no-int-to-ptr)
  comm->set_data(reinterpret_cast<void*>(number + 1));
  // Without bytes it does not start when it has both its ends.
  comm->set_source(ways_[way].from)->set_destination(ways_[way].to);
  return number;
}

void Communications::start(std::size_t number, std::uint64_t bytes) {
  sg::Comm& comm = *communications_[number].comm;
  comm.set_state(sg::Activity::State::INITED);
  comm.set_payload_size(bytes);
  comm.start();
}

}  // namespace stagecraft
