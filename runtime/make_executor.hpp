// The executor of a rank on the backend that the options name.
#pragma once

#include <memory>

#include "runtime/executor.hpp"

namespace stagecraft {

// Takes all memory that the plan foresees. Throws device when the device is not there or has too little.
std::unique_ptr<Executor> make_executor(const ExecutorContext& context);

}  // namespace stagecraft
