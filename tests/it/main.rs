//! Tests of the whole: the library through its public interface, and the command.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod broken_model;
mod browser;
mod budget;
mod build;
mod campaign_processes;
mod checkpoint_command;
mod cli;
mod compare;
mod ending;
mod evaluation_campaign;
mod evaluation_drive;
mod evaluation_golden;
mod evaluation_log;
mod evaluation_mcap;
mod evaluation_report;
mod evaluation_score;
mod evaluation_tools;
mod file_writers;
mod golden_agent;
mod kv_cache;
mod latency_file;
mod maps;
mod module_order;
mod network_folder;
mod operators;
mod pilot;
mod profile_loop;
mod profile_page;
mod real_time;
mod recording;
mod report_command;
mod result_forms;
mod roofline;
mod runtime;
mod slurm_array;
mod sweep;
mod telemetry;
mod time_modes;
mod trace;
mod two_rates;
mod understanding_groups;
mod verify;
mod whole_files;
