#include "models/layout.hpp"

#include <gmock/gmock.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "models/recomputed_layers.hpp"
#include "models/schedule/schedule.hpp"

namespace stagecraft {
namespace {

ParallelLayout everything() {
  ParallelLayout layout{.pipeline = 8, .virtual_stages = 3, .tensor = 4, .context = 2, .data = 16, .expert = 8};
  layout.microbatch = 2;
  layout.microbatches = 64;
  layout.first_stage_layers = 3;
  layout.last_stage_layers = 2;
  layout.recompute = Recompute::full;
  layout.recomputed_layers = 5;
  layout.schedule = PipelineSchedule::interleaved_one_f_one_b;
  layout.zero = 1;
  layout.sequence_parallel = layout.offload_optimizer = layout.offload_activations = true;
  layout.overlap_gradients = layout.overlap_parameters = layout.overlap_tensor = layout.overlap_pipeline = true;
  layout.order = {Dimension::tensor, Dimension::pipeline, Dimension::context, Dimension::data};
  return layout;
}

TEST(ParallelLayout, HasOneLineOfText) {
  EXPECT_EQ(to_string(everything()),
            "p8 v3 t4 c2 d16 e8 b2 m64 first=3 last=2 interleaved-1f1b sp zero1 full:5 offload=optimizer,activations "
            "overlap=gradients,parameters,tensor,pipeline order=tpcd");
  EXPECT_EQ(to_string(ParallelLayout{}), "1f1b");
}

TEST(ParallelLayout, ReadsBackWhatItWrites) {
  ParallelLayout by_rank = everything();
  by_rank.recomputed_layers = fewest_layers;
  EXPECT_THAT(to_string(by_rank), testing::HasSubstr(" full:fewest "));
  for (const ParallelLayout& layout : {everything(), ParallelLayout{}, by_rank}) {
    EXPECT_EQ(parse_layout(to_string(layout)), layout);
    const Json json = to_json(layout);
    EXPECT_EQ(layout_from_json(JsonValue(json, "layout.json")), layout);
  }
}

TEST(ParallelLayout, RefusesWordsItDoesNotKnow) {
  for (const char* text :
       {"p0", "p8x", "zero4", "overlap=", "overlap=all", "order=tcd", "order=ttdp", "full:", "1F1B"}) {
    try {
      parse_layout(text);
      ADD_FAILURE() << text << " was accepted";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(std::string("got '") + text + "'"));
    }
  }
}

TEST(ParallelLayout, NamesSchedulesAsTheGeneratorsDo) {
  const auto& kinds = schedule_kinds();
  for (const auto& named : pipeline_schedule_names()) {
    EXPECT_EQ(name(named.second), named.first);
    EXPECT_TRUE(std::any_of(kinds.begin(), kinds.end(), [&](const ScheduleKind& kind) {
      return kind.name == named.first;
    })) << named.first;
  }
}

}  // namespace
}  // namespace stagecraft
