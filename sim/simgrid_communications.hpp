// Communications between hosts of SimGrid that are started again and again.
//
// SimGrid 3.32 enters every new one-sided communication in a list and searches all of that list when any of them ends.
// One that is started again is not entered again, so the list stays short, and nothing is allocated.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <simgrid/s4u.hpp>
#include <utility>
#include <vector>

namespace stagecraft {

class Communications {
 public:
  // Calls on_end(number) at the end of each communication. One object an engine; it must live while the engine runs.
  explicit Communications(std::function<void(std::size_t)> on_end);

  // A number for the way from one host to another, from 0.
  std::size_t way(simgrid::s4u::Host* from, simgrid::s4u::Host* to);
  // Reserves a communication on a way; its number is that of no other until it has ended. Numbers are small.
  std::size_t reserve(std::size_t way);
  // Starts what was reserved, with so many bytes.
  void start(std::size_t number, std::uint64_t bytes);

 private:
  struct Way {
    simgrid::s4u::Host *from, *to;
    std::vector<std::size_t> idle;  // communications
  };
  struct Communication {
    simgrid::s4u::CommPtr comm;
    std::size_t way;
  };

  std::function<void(std::size_t)> on_end_;
  std::map<std::pair<simgrid::s4u::Host*, simgrid::s4u::Host*>, std::size_t> numbers_;  // of ways
  std::vector<Way> ways_;
  std::vector<Communication> communications_;
  std::vector<std::size_t> ended_;  // since the clock stood still
};

}  // namespace stagecraft
