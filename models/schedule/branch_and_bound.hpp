// The best order of a small problem (order_problem.hpp), proven: the yardstick of the search.
//
// Branches as Giffler and Thompson 1960 do for job shops: of the tasks that could come next, take the one that could
// end first; on its rank, one of those that could start before that end comes next. Some best schedule is made that
// way: if a best one runs another task first there, starting no sooner than that end, the task fits in before it and
// delays nothing. The memory allows that too: with one stage a rank a rank's forwards are alike, so that a forward
// brought forward passes only tasks that free memory.
//
// Bounds: each rank's remaining work, and each outstanding micro-batch's way. Dominance: of two beginnings with the
// same tasks done, one is dropped when the other is no later anywhere: neither a rank nor a result that is still
// needed.
#pragma once

#include "models/schedule/order_problem.hpp"

namespace stagecraft {

struct ProvenOrder {
  double makespan = 0;
  Orders orders;
};

// REQUIRES: one stage a rank, in order, whole micro-batches; at most 4 ranks and 6 micro-batches. Time grows
// exponentially in both.
ProvenOrder branch_and_bound(const OrderProblem& problem);

}  // namespace stagecraft
