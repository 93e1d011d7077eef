// A search over the orders of the ranks (order_problem.hpp), for unequal stages, latency and a memory limit.
//
// For each placement of the stages that a named schedule of schedule_kinds() has - round and round, in a V and, if
// shape.both_directions, on two ranks - it starts from the best named schedule that fits the memory and from lists
// scheduled by priorities, goes on from the one with the shortest makespan, and the best of all placements wins:
//   - simulated annealing; a move takes a task without slack out of its rank's list and puts it elsewhere in it
//   - the best order met is kept, so that the result is never worse than the best named schedule
//   - ends when lower_bound() is reached, which proves the order best, or after so many steps, fewer for large problems
// With no times, latency or limit given it is the best named schedule: those were made for that case.
// Deterministic: one seed, own random numbers. Small problems get the optimum by test, against branch_and_bound.hpp.
//
// The objective is the makespan, from the first start to the last end over all ranks. Memory: activations from the
// forward to the weight gradient; at most shape.memory_limit micro-batches a rank, or all of them. With shape.slices
// the order is one of token slices.
#pragma once

#include "models/schedule/order_problem.hpp"

namespace stagecraft {

// REQUIRES: refuse_searched(shape) is empty.
ComputeSchedule generate_searched(const ScheduleShape& shape);
std::string refuse_searched(const ScheduleShape& shape);

// The best of the named schedules within the memory, B split, or one micro-batch after the other if none fits, by its
// name.
ComputeSchedule best_named_schedule(const ScheduleShape& shape);

// Improves `orders` in place, returns the makespan. REQUIRES: orders that run within the problem's limit.
double improve_orders(const OrderProblem& problem, Orders& orders);

}  // namespace stagecraft
