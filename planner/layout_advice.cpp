#include "planner/layout_advice.hpp"

#include <algorithm>
#include <array>
#include <span>

#include "models/cost/memory.hpp"
#include "models/network/layer_graph.hpp"
#include "models/text.hpp"
#include "planner/layout_ranking.hpp"

namespace stagecraft {
namespace {

struct Term {
  const char* name;
  double StepTerms::*seconds;
};
constexpr std::array<Term, 10> all_terms{{{"compute", &StepTerms::compute},
                                          {"recomputation", &StepTerms::recompute},
                                          {"bubble", &StepTerms::bubble},
                                          {"tensor-parallel communication", &StepTerms::tensor},
                                          {"messages between stages", &StepTerms::pipeline},
                                          {"data-parallel communication", &StepTerms::data},
                                          {"context-parallel communication", &StepTerms::context},
                                          {"expert-parallel communication", &StepTerms::expert},
                                          {"optimizer", &StepTerms::optimizer},
                                          {"other", &StepTerms::other}}};

struct Property {
  const char* name;
  void (*scale)(Machine&, double factor);
};

std::span<NetworkLevel> between_nodes(Machine& machine) { return std::span(machine.levels).subspan(1); }

std::vector<Property> properties(const Machine& machine) {
  std::vector<Property> list{
      {"products",
       [](Machine& m, double factor) {
         for (auto& peak : m.device.peak) peak *= factor;
       }},
      {"memory bandwidth", [](Machine& m, double factor) { m.device.memory_bandwidth *= factor; }},
      {"memory", [](Machine& m, double factor) { m.device.memory *= factor; }},
      {"local links", [](Machine& m, double factor) { m.levels.front().bandwidth *= factor; }},
      {"local latency", [](Machine& m, double factor) {
         m.levels.front().latency *= factor;
         m.levels.front().start *= factor;
       }}};
  if (machine.levels.size() > 1) {
    list.push_back({"network", [](Machine& m, double factor) {
                      for (NetworkLevel& level : between_nodes(m)) level.bandwidth *= factor;
                    }});
    list.push_back({"network latency", [](Machine& m, double factor) {
                      for (NetworkLevel& level : between_nodes(m)) {
                        level.latency *= factor;
                        level.tree_latency *= factor;
                        level.start *= factor;
                      }
                    }});
  }
  return list;
}

std::optional<JudgedLayout> best_of(const StepModel& model, const LayoutChoices& choices,
                                    LayoutObjective objective = LayoutObjective::time) {
  try {
    const LayoutSpace space(model, choices);
    const LayoutResult result = search_layouts(space, {.objective = objective, .keep = 1, .near_misses = 0});
    if (!result.best.empty()) return result.best.front();
  } catch (const Error&) {  // these choices allow no layout at all
  }
  return std::nullopt;
}

struct LayoutFreedom {
  const char* what;
  bool (*is_fixed)(const LayoutChoices&);
  void (*free)(LayoutChoices&);
};
const std::array<LayoutFreedom, 12> layout_freedoms{
    {{"another tensor-parallel width", [](const auto& c) { return c.tensor.has_value(); },
      [](auto& c) { c.tensor.reset(); }},
     {"another ZeRO stage", [](const auto& c) { return c.zero.has_value(); }, [](auto& c) { c.zero.reset(); }},
     {"another recomputation", [](const auto& c) { return c.recompute || c.recomputed_layers; },
      [](auto& c) { c.recompute.reset(), c.recomputed_layers.reset(); }},
     {"another micro-batch", [](const auto& c) { return c.microbatch.has_value(); },
      [](auto& c) { c.microbatch.reset(); }},
     {"another number of stages", [](const auto& c) { return c.pipeline || c.stages || c.virtual_stages; },
      [](auto& c) { c.pipeline.reset(), c.stages.reset(), c.virtual_stages.reset(); }},
     {"other replicas", [](const auto& c) { return c.data.has_value(); }, [](auto& c) { c.data.reset(); }},
     {"another schedule", [](const auto& c) { return c.schedule.has_value(); }, [](auto& c) { c.schedule.reset(); }},
     {"another context-parallel width", [](const auto& c) { return c.context.has_value(); },
      [](auto& c) { c.context.reset(); }},
     {"another expert-parallel width", [](const auto& c) { return c.expert.has_value(); },
      [](auto& c) { c.expert.reset(); }},
     {"sequence parallelism free", [](const auto& c) { return c.sequence_parallel.has_value(); },
      [](auto& c) { c.sequence_parallel.reset(); }},
     {"an offloaded optimizer", [](const auto& c) { return c.offload_optimizer.has_value(); },
      [](auto& c) { c.offload_optimizer.reset(); }},
     {"offloaded activations", [](const auto& c) { return c.offload_activations.has_value(); },
      [](auto& c) { c.offload_activations.reset(); }}}};

std::string help(const LayoutSpace& space) {
  const StepModel& model = space.model();
  LayoutChoices all = space.choices();
  int fixed = 0;
  for (const LayoutFreedom& freedom : layout_freedoms) {
    if (!freedom.is_fixed(space.choices())) continue;
    ++fixed;
    LayoutChoices freed = space.choices();
    freedom.free(freed);
    freedom.free(all);
    if (const auto fits = best_of(model, freed)) {
      return fmt::format("with {} it fits, e.g. {}", freedom.what, to_string(fits->layout));
    }
  }
  if (fixed > 1) {
    if (const auto fits = best_of(model, all)) {
      return fmt::format("with everything left to the search it fits, e.g. {}", to_string(fits->layout));
    }
  }
  const ParameterBytes bytes = parameter_bytes(model.job().precision, model.job().optimizer);
  const double held = static_cast<double>(total_parameters(build_graph(model.job().network))) *
                      (bytes.weight + bytes.gradient + bytes.optimizer_state).value();
  return fmt::format(
      "weights, gradients and optimizer state alone are {}, the memory of {} is {}: more or larger devices, a smaller "
      "network, batch or sequence would help",
      to_string(Bytes(held)), counted(space.choices().devices, "device"),
      to_string(model.machine().device.memory * static_cast<double>(space.choices().devices)));
}

}  // namespace

std::string widths_text(const ParallelLayout& l) {
  return fmt::format("p{}v{}t{}c{}d{}b{}", l.pipeline, l.virtual_stages, l.tensor, l.context, l.data, l.microbatch);
}

std::vector<std::pair<std::string, double>> terms_of(const StepEstimate& estimate) {
  std::vector<std::pair<std::string, double>> terms;
  for (const Term& term : all_terms) {
    const double seconds = estimate.terms.*term.seconds;
    if (seconds >= 0.0005 * estimate.time.value()) terms.emplace_back(term.name, seconds);
  }
  std::stable_sort(terms.begin(), terms.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  return terms;
}

std::string why_not(const StepModel& model, const JudgedLayout& judged) {
  const DeviceType& device = model.machine().device;
  return fmt::format("out of memory on stage {} ({}): needs {}, has {}", judged.estimate.worst_rank, device.name,
                     to_string(Bytes(judged.estimate.memory.total())), to_string(device.memory));
}

std::vector<WhatIf> what_if(const LayoutSpace& space, const JudgedLayout& best, LayoutObjective objective) {
  std::vector<WhatIf> result;
  for (const Property& property : properties(space.model().machine())) {
    for (const double factor : {0.5, 0.9, 1.1, 2.0}) {
      Machine machine = space.model().machine();
      property.scale(machine, factor);
      const StepModel model(space.model().job(), machine);
      WhatIf& what = result.emplace_back();
      what.property = property.name;
      what.factor = factor;
      const StepEstimate same = model.estimate(best.layout);
      if (same.fits) what.same = same.time.value();
      if (!what.planned_anew()) continue;
      if (const auto anew = best_of(model, space.choices(), objective)) {
        what.best = anew->estimate.time.value();
        what.plan = to_string(anew->layout);
        what.as = same_candidate(anew->layout, best.layout) ? "the same" : widths_text(anew->layout);
      }
    }
  }
  return result;
}

Error no_layout_fits(const LayoutSpace& space, const std::string& network, const std::string& cluster) {
  const JudgedLayout smallest = smallest_layout(space);
  return infeasible("no layout of network '{}' fits into cluster '{}': the nearest, {}, is {}; {}", printable(network),
                    printable(cluster), to_string(smallest.layout), why_not(space.model(), smallest), help(space));
}

}  // namespace stagecraft
