//! `cargo xtask bench`: what the agent costs and how quick it is, beside what it aims at.

mod bpf_stats;
mod figure;
mod log_field;
mod memory;
mod memory_cgroup;
mod offcpu;
mod once;
mod symbols;
mod unwind;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};
use nix::unistd::Uid;

/// Measure the agent on this machine and print the figures beside their aims.
///
/// Needs root: `sudo -E env PATH=$PATH cargo xtask bench once`, `… bench offcpu`, `… bench symbols`, `… bench unwind`.
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Memory(memory::Options),
    Offcpu(offcpu::Options),
    Once(once::Options),
    Symbols(symbols::Options),
    Unwind(unwind::Options),
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(Uid::effective().is_root(), "measuring needs root: sudo -E env PATH=$PATH cargo xtask bench …");
    match &options.what {
        What::Memory(options) => memory::run(options),
        What::Offcpu(options) => offcpu::run(options),
        What::Once(options) => once::run(options),
        What::Symbols(options) => symbols::run(options),
        What::Unwind(options) => unwind::run(options),
    }
}
