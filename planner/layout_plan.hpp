// From a layout to a plan that can be simulated and handed to others.
#pragma once

#include "models/cost/step_model.hpp"
#include "models/plan.hpp"

namespace stagecraft {

// What the step model needs to know of a plan. REQUIRES: a plan of a transformer.
TrainingJob job_of(const Plan& plan);

// Prices the stages of a plan whose ranks may be sharded: each stage as one device of its rank, with the communication
// inside its layers in its forward and backward, and what ZeRO 2 and 3 exchange for every micro-batch; gradients
// reduced after the backward so many that, alone on the network, they take what the step model says shows of what
// replicas exchange once a step; what the step takes beyond (the framework's share, stragglers) with the optimizer.
// Throws bad_input for a layout that the model refuses. REQUIRES: a validated plan of a transformer, `model` made for
// job_of(plan).
void price(Plan& plan, const StepModel& model);

// The layout on the first devices of the cluster, priced, with its closed form, timeline, bubble and peak memory; the
// schedule made for its stage times where it plans with times. Validates. REQUIRES: a layout that the model accepts,
// whose devices the cluster has; network and cluster are what the model was made of.
Plan make_plan(const StepModel& model, const Network& network, const Cluster& cluster, const ParallelLayout& layout);

}  // namespace stagecraft
