// A small table of measurements that tests change cell by cell.
#pragma once

#include <fmt/format.h>

#include <map>
#include <string>
#include <vector>

#include "calibration/measurement.hpp"

namespace stagecraft {

// A 3.6 billion parameter GPT on eight A100 devices, complete.
inline std::map<std::string, std::string> complete_row() {
  return {{"id", "r1"},
          {"model", "GPT"},
          {"layers", "30"},
          {"hidden", "3072"},
          {"heads", "32"},
          {"kv_heads", "32"},
          {"ffn_hidden", "12288"},
          {"mlp", "gelu"},
          {"vocab", "51200"},
          {"seq_len", "2048"},
          {"gpu", "A100-SXM4-80GB"},
          {"n_gpus", "8"},
          {"gpus_per_node", "8"},
          {"inter_node_link", ""},
          {"framework", "Megatron-LM 2021"},
          {"tp", "2"},
          {"pp", "2"},
          {"vpp", "1"},
          {"dp", "2"},
          {"schedule", "1F1B"},
          {"micro_batch", "4"},
          {"global_batch", "64"},
          {"recompute", "full"},
          {"seq_parallel", "0"},
          {"dp_sharding", "none"},
          {"dtype", "fp16"},
          {"iter_time_s", "4"},
          {"mfu_pct", ""},
          {"peak_mem_gb", ""},
          {"mem_kind", ""},
          {"status", "ok"}};
}

// The rows as a table; all have the cells of the first.
inline std::string csv_of(const std::vector<std::map<std::string, std::string>>& rows) {
  std::string text;
  for (const auto& [column, cell] : rows.front()) text += (text.empty() ? "" : ",") + column;
  for (const auto& row : rows) {
    std::string line;
    for (const auto& [column, cell] : row) line += fmt::format("{}\"{}\"", line.empty() ? "\n" : ",", cell);
    text += line;
  }
  return text + "\n";
}

inline MeasurementTable read_rows(const std::vector<std::map<std::string, std::string>>& rows) {
  return read_measurements(CsvTable(csv_of(rows), "rows.csv"), load_calibration());
}

}  // namespace stagecraft
