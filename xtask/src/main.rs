//! nodeprof's development tasks: everything about the repository that `cargo build` alone cannot do.

mod agent_profile;
mod agent_run;
mod bench;
mod command;
mod compare_perf;
mod compare_stacks;
mod disagreement;
mod ebpf_build;
mod ebpf_hash;
mod ebpf_stack;
mod ebpf_toolchain;
mod elf_symbols;
mod fuzz;
mod install;
mod live_test;
mod lock_file;
mod log_time;
mod object_paths;
mod packages;
mod process_group;
mod seconds;
mod skip_log;
mod vmtest;
mod workload;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// nodeprof's development tasks.
///
/// The agent itself builds with plain `cargo build`: it embeds the committed eBPF object
/// `agent-ebpf/prebuilt/agent-ebpf.o`. The tasks here rebuild that object, run the tests with all they need
/// from the distribution, install the agent where `sudo` finds it, measure it, fuzz it, and try it on other
/// kernels.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    BuildEbpf(ebpf_build::Options),
    Test(live_test::Options),
    Install(install::Options),
    ComparePerf(compare_perf::Options),
    CompareStacks(compare_stacks::Options),
    Bench(bench::Options),
    Fuzz(fuzz::Options),
    Vmtest(vmtest::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::BuildEbpf(options) => ebpf_build::run(&options),
        Task::Test(options) => live_test::run(&options),
        Task::Install(options) => install::run(&options),
        Task::ComparePerf(options) => compare_perf::run(&options),
        Task::CompareStacks(options) => compare_stacks::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Vmtest(options) => vmtest::run(&options),
    };
    // Printed here: what returning it from `main` prints depends on RUST_BACKTRACE.
    if let Err(error) = result {
        eprintln!("error: {error:#}");
        let is_verdict = error.is::<disagreement::Disagreement>();
        return if is_verdict { disagreement::Disagreement::STATUS.into() } else { ExitCode::FAILURE };
    }
    ExitCode::SUCCESS
}
