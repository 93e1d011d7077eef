// A makespan that no order can beat (order_problem.hpp), to say how far a schedule can be from the best.
//
// The largest of these, each proven for every order; f, i, w are a stage's times, c the latency of a message where
// neighbouring stages are on different ranks, L the activation limit, M micro-batches. With two ways each rank's and
// each micro-batch's terms are those of its places, and a rank's starts and ends the earliest of them; slices count as
// micro-batches, which only leaves out that some wait for each other.
//
// 1. A micro-batch by itself: every forward, then every input gradient, then the first stage's weight gradient:
//    sum f + sum i + 2 sum c + w_0.
//
// 2. A rank by itself. Let a be the earliest start of its first stage (forwards and messages before it), R the
//    earliest start of its first input gradient (all forwards, the input gradients of the stages behind its last
//    one, messages), e the least time from the end of its last input gradient to the end of all: the input gradients
//    of the stages before its first one, messages, w_0. Let y be the time of the forwards that it runs before its
//    first input gradient, x that of the weight gradients behind its last one. The makespan is at least
//      max(R, a + y) + (all its forwards - y) + all its input gradients + (all its weight gradients - x) + max(x, e),
//    which shrinks as x and y grow. And y is at most the time of the L longest forwards, for none of them is let go
//    before a weight gradient; x at most that of the L longest weight gradients, for all their activations are kept.
//
// 3. A rank with one stage s, through its memory. Forward j + L starts after weight gradient j ended, and from the
//    start of forward j to that end lies the way to the last stage and back: a cycle of
//      f_s + sum over later stages (f + i + 2c) + i_s + w_s.
//    There are k = floor((M-1) / L) whole cycles before forward kL, then M-1-kL forwards until the last, which still
//    has to go to the end and back: a + k cycle + (M-1-kL) f_s + (cycle - w_s) + max(w_s, e).
//
// 4. Any rank, through its memory: each activation is kept for such a cycle of its stage, and at most L at a time,
//    all of them after a: a + M (sum of its stages' cycles) / L.
#pragma once

#include "models/schedule/order_problem.hpp"

namespace stagecraft {

double lower_bound(const OrderProblem& problem);

}  // namespace stagecraft
