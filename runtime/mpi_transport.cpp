#include "runtime/transport.hpp"

namespace stagecraft {

bool MpiSession::launched() { return false; }
MpiSession::MpiSession() { throw device_error("this build has no MPI"); }
MpiSession::~MpiSession() = default;
std::unique_ptr<Transport> MpiSession::endpoint(const TransportOptions&) { return nullptr; }
void MpiSession::abort(int) { std::abort(); }

}  // namespace stagecraft
