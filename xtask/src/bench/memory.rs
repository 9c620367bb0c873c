//! `cargo xtask bench memory`: what memory profiling costs a program that does nothing but touch memory.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::bpf_stats::{BpfStats, ProgramRuns};
use super::figure::{Figure, table};
use crate::agent_run::{self, RunningAgent};
use crate::workload;

/// Measure the cost of page-fault sampling: nanoseconds a page that is touched for the first time, without the agent and with
/// `--profilers memory`, by turns.
///
/// Small pages, each touched once, 128 MiB at a time, by the program's own CPU time; a run's figure is the least of its rounds, since
/// everything else on the machine only adds to it. The program's own cost is by the kernel's account (kernel.bpf_stats_enabled), in runs of their own, because counting
/// costs too.
#[derive(Args)]
pub(crate) struct Options {
    /// Repetitions
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
}

/// Longer than the program takes.
const DURATION: &str = "--duration=5s";
/// Between two looks at a run.
const LOOK: Duration = Duration::from_millis(20);
/// How long the agent may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);

/// Touches pages, and prints the least nanoseconds a page of all rounds.
const TOUCH: &str = "\
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
int main(void) {
    const unsigned long bytes = 128ul << 20, page = 4096;
    double least = 1e18;
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    for (int round = 0; round < 8; round++) {
        struct timespec began, ended;
        char *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) return 1;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &began);
        for (unsigned long at = 0; at < bytes; at += page) *(volatile char *)(memory + at) = 1;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ended);
        double each = ((ended.tv_sec - began.tv_sec) * 1e9 + ended.tv_nsec - began.tv_nsec) / (bytes / page);
        if (each < least) least = each;
        munmap(memory, bytes);
    }
    printf(\"%.2f\\n\", least);
    return 0;
}
";

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let agent = agent_run::build()?;
    let directory = tempfile::tempdir()?;
    let directory = directory.path();
    let touch = workload::compile(directory, "touch", TOUCH, &["-O2"])?.context("no gcc")?;
    let (mut without, mut with, mut slower) = (Vec::new(), Vec::new(), Vec::new());
    for run in 1..=options.runs {
        eprintln!("run {run} of {}", options.runs);
        let alone = touched(&touch)?;
        let (beside, _) = beside(&agent, directory, &touch)?;
        without.push(alone);
        with.push(beside);
        slower.push(100.0 * (beside / alone - 1.0));
    }
    let (mut each_run, mut each_page) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        let _stats = BpfStats::enable()?;
        let (_, Counted { program, faults }) = beside(&agent, directory, &touch)?;
        each_run.push(program.run_time_ns as f64 / program.runs.max(1) as f64);
        each_page.push(program.run_time_ns as f64 / faults.max(1) as f64);
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("memory, Linux {}, {} repetitions\n", kernel.trim(), options.runs);
    let figures = [
        Figure::new("a page that is touched, without the agent", "ns", without),
        Figure::new("a page that is touched, with --profilers memory", "ns", with),
        Figure::new("  how much slower that is, run by run", "%", slower),
        Figure::new("eBPF program, a run (half of them take a sample)", "ns", each_run),
        Figure::new("eBPF program, for each page fault of the machine", "ns", each_page),
    ];
    print!("{}", table(&figures));
    Ok(())
}

/// What was counted in a run of the agent.
struct Counted {
    program: ProgramRuns,
    /// Page faults of the whole machine.
    faults: u64,
}

/// Nanoseconds a page of the program's best round.
fn touched(touch: &Path) -> Result<f64> {
    let output = Command::new(touch).output().context("cannot run the program that touches memory")?;
    ensure!(output.status.success(), "the program that touches memory failed: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

/// The same while the agent samples.
fn beside(agent: &Path, directory: &Path, touch: &Path) -> Result<(f64, Counted)> {
    let mut command = Command::new(agent);
    command.env("RUST_LOG", "info,agent::run=debug");
    command.args(["--once", "--profilers=memory", "--format=json", DURATION]);
    command.arg("--output").arg(directory);
    let running = RunningAgent::start(command, directory)?;
    let began = Instant::now();
    while !fs::read_to_string(directory.join("log"))?.contains("profiling has begun") {
        ensure!(began.elapsed() < PATIENCE, "the agent does not begin");
        std::thread::sleep(LOOK);
    }
    let each = touched(touch)?;
    let mut program = ProgramRuns::default();
    let finished = running.watch(LOOK, |pid| program = ProgramRuns::of_sampler(pid).unwrap_or(program))?;
    let faults = finished.log.lines().filter_map(faults_in).sum();
    Ok((each, Counted { program, faults }))
}

/// The number of faults in a line of the agent's log, if it is about those of a CPU.
fn faults_in(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("FaultLedger { faults: ")?;
    rest.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only lines about a CPU's page faults count.
    #[test]
    fn faults_are_read() {
        let line =
            "T DEBUG page faults cpu=0 ledger=FaultLedger { faults: 299023, due: 9365, kernel_skipped: 0 }";
        assert_eq!(faults_in(line), Some(299_023));
        assert_eq!(faults_in("T DEBUG page faults"), None);
    }
}
