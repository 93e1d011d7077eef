// The subcommands, one file each: an options struct, its set-up on the command line, and its run.
#pragma once

#include <CLI/CLI.hpp>

namespace stagecraft {

// Each adds a subcommand whose callback does the work and throws Error. The callbacks own their options.
void add_plan_command(CLI::App& app);
void add_simulate_command(CLI::App& app);
void add_profile_command(CLI::App& app);
void add_run_command(CLI::App& app);
void add_compare_command(CLI::App& app);
void add_report_command(CLI::App& app);
void add_export_command(CLI::App& app);
void add_calibrate_command(CLI::App& app);
void add_validate_command(CLI::App& app);
void add_show_command(CLI::App& app);
// Of `show` and `compare`.
void add_show_schedule_command(CLI::App& show);
void add_compare_schedules_command(CLI::App& compare);

}  // namespace stagecraft
