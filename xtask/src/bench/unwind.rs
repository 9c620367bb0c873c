//! `cargo xtask bench unwind`: what walking user stacks costs, in the kernel and in user space.

mod frame_cost;
mod many_modules;
mod row_rate;
mod slow_share;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use clap::Args;

use super::figure::table;
use super::log_field::field;
use crate::agent_run::{self, RunningAgent};
use crate::command;

/// Measure user stacks: cost of a frame, building of rows, size of the tables, and how seldom the slow path is taken.
///
/// Cost of a frame: the kernel's own account of the sampling program's run time (kernel.bpf_stats_enabled, switched on for
/// those runs only), while C programs without frame pointers burn all CPUs at a known depth. Runs of the program on an idle CPU or in
/// another process cost what they cost when nothing at all is selected; that is measured first, and taken off. "Each further frame"
/// is the slope of a line through all depths.
///
/// Rows: all pages of a file built one after the other by one thread in user space.
///
/// Arena: a process that runs code of many libraries all the time, with the default size and with 2 MiB.
///
/// Slow path: share of user stacks that the program had to leave to the agent, second by second, beside a steady mix of programs.
#[derive(Args)]
pub(crate) struct Options {
    /// Repetitions of what is timed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Libraries whose code runs while the arena is measured
    #[arg(long, value_name = "N", default_value_t = 300)]
    modules: usize,
    /// Seconds for which the slow path is watched
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u16).range(4..))]
    seconds: u16,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        command::find_in_path("gcc").is_some(),
        "the measured programs are compiled with gcc: install it"
    );
    let agent = agent_run::build()?;
    let directory = tempfile::tempdir()?;
    let directory = directory.path();
    let mut figures = frame_cost::measure(&agent, directory, options.runs)?;
    figures.extend(row_rate::measure(options.runs)?);
    figures.extend(many_modules::measure(&agent, directory, options.modules)?);
    let (slow, seconds) = slow_share::measure(&agent, directory, options.seconds)?;
    figures.extend(slow);

    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("user stacks, Linux {}, {} repetitions\n", kernel.trim(), options.runs);
    print!("{}\n{seconds}", table(&figures));
    Ok(())
}

/// An `agent --once` whose JSON profile and log go to `directory`, with the log lines about user stacks among them.
fn start(agent: &Path, directory: &Path, arguments: &[String]) -> Result<RunningAgent> {
    let mut command = Command::new(agent);
    command.env("RUST_LOG", "info,agent::profiler=debug,agent::unwind::unwinder=debug");
    command
        .args(["--once", "--profilers=cpu", "--format=json"])
        .args(arguments)
        .arg("--output")
        .arg(directory);
    RunningAgent::start(command, directory)
}
