//! `cargo xtask bench once`: how quick `agent --once` is and what it costs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use clap::Args;

use super::bpf_stats::{BpfStats, ProgramRuns};
use super::figure::{Figure, table};
use super::memory_cgroup::{MemoryCgroup, Usage};
use crate::agent_run::{self, FinishedRun, RunningAgent};
use crate::log_time;
use crate::workload::Workload;

/// Measure `agent --once`: start, end, memory, and the cost of a sample.
///
/// Start: "session start to first sample" is the agent's own measurement. "exec to first sample" is measured from
/// outside: from just before the agent is executed to the line `registered profiler: cpu` in its log, when all timers
/// are armed, plus one period, because a CPU is busy and so is sampled within that time. One process is busy; the
/// same with every CPU busy several times over says how long the agent waits for its turn.
///
/// End: "end of window to exit" runs from the end of the window that the profile states (start plus duration) to when the
/// process has ended; formats pprof, svg and json.
///
/// Memory: charged to a cgroup (v1 or v2) of its own, default options. "Peak usage" is all that was charged, "without
/// inactive file" leaves out the file cache that the kernel drops first, sampled every 20 ms. What others have in the
/// page cache already is charged to them.
///
/// eBPF: run time by the kernel's own account (kernel.bpf_stats_enabled, switched on for that run only).
#[derive(Args)]
pub(crate) struct Options {
    /// Sleeping processes beside the timed runs
    #[arg(long, value_name = "N", default_value_t = 50)]
    processes: usize,
    /// Sleeping processes beside the run whose memory is measured
    #[arg(long, value_name = "N", default_value_t = 100)]
    memory_processes: usize,
    /// Timed runs
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
}

/// Processes that use CPU beside the runs with all CPUs busy, unless there are more CPUs.
const BUSY: usize = 4;
/// Between two looks at a run.
const LOOK: Duration = Duration::from_millis(20);
const MEBIBYTE: f64 = 1_048_576.0;
const CGROUP_PEAK: &str = "cgroup memory, peak usage";

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let agent = agent_run::build()?;
    let directory = tempfile::tempdir()?;
    let directory = directory.path();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut figures = Vec::new();

    let busy = Workload::busy(directory, 1)?;
    let sleeping = Workload::sleeping(directory, options.processes)?;
    announce("start", &sleeping, &busy);
    figures.extend(start(&agent, directory, options.runs)?);
    drop(busy);

    let busy = Workload::busy(directory, BUSY.max(cpus))?;
    announce("start and end", &sleeping, &busy);
    figures.extend(start_and_end(&agent, directory, options.runs)?);
    drop(sleeping);

    let sleeping = Workload::sleeping(directory, options.memory_processes)?;
    announce("memory", &sleeping, &busy);
    match MemoryCgroup::create() {
        Ok(cgroup) => figures.extend(memory(&agent, directory, &cgroup)?),
        Err(error) => {
            eprintln!("memory cannot be measured: {error:#}");
            figures.push(Figure::new(CGROUP_PEAK, "MiB", Vec::new()).aim(64.0));
        }
    }
    announce("eBPF program", &sleeping, &busy);
    figures.extend(sample_cost(&agent, directory)?);

    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("agent --once on {cpus} CPUs, Linux {}, {} timed runs\n", kernel.trim(), options.runs);
    print!("{}", table(&figures));
    Ok(())
}

fn announce(what: &str, sleeping: &Workload, busy: &Workload) {
    eprintln!("{what}: beside {} and {}", sleeping.description, busy.description);
}

fn once(mut agent: Command, directory: &Path, arguments: &[&str]) -> Result<RunningAgent> {
    agent.arg("--once").args(arguments).arg("--output").arg(directory);
    RunningAgent::start(agent, directory)
}

/// What the clock says of one run.
struct Times {
    /// From the session's start to the first sample, as the agent logs it.
    inside: f64,
    /// From the agent's execution to the first sample, at most.
    outside: f64,
    /// From the window's end to the process's.
    end: f64,
}

fn start(agent: &Path, directory: &Path, runs: u16) -> Result<Vec<Figure>> {
    let times = times(agent, directory, runs)?;
    Ok(vec![
        Figure::new("session start to first sample (agent's log)", "ms", each(&times, |run| run.inside))
            .aim(300.0),
        Figure::new("exec to first sample, at most", "ms", each(&times, |run| run.outside)).aim(300.0),
    ])
}

fn start_and_end(agent: &Path, directory: &Path, runs: u16) -> Result<Vec<Figure>> {
    let times = times(agent, directory, runs)?;
    Ok(vec![
        Figure::new(
            "  the same, all CPUs busy: session start to first sample",
            "ms",
            each(&times, |run| run.inside),
        ),
        Figure::new("  the same, all CPUs busy: exec to first sample", "ms", each(&times, |run| run.outside)),
        Figure::new("end of window to exit, all CPUs busy", "ms", each(&times, |run| run.end)).aim(1000.0),
    ])
}

fn each(times: &[Times], value: impl Fn(&Times) -> f64) -> Vec<f64> {
    times.iter().map(value).collect()
}

fn times(agent: &Path, directory: &Path, runs: u16) -> Result<Vec<Times>> {
    (0..runs)
        .map(|_| {
            let arguments = ["--duration=2s", "--format=pprof,svg,json"];
            let run = once(Command::new(agent), directory, &arguments)?.finish()?;
            let profile = run.profile()?;
            let (registered, _) = run.logged("registered profiler: cpu")?;
            let sampled = registered + Duration::from_nanos(profile.period);
            let began =
                log_time::parse(&profile.started).context("the profile does not say when it began")?;
            let ended = began + Duration::try_from_secs_f64(profile.duration_seconds)?;
            Ok(Times {
                inside: logged_first_sample(&run)?,
                outside: milliseconds(run.spawned, sampled)?,
                end: milliseconds(ended, run.ended)?,
            })
        })
        .collect()
}

fn logged_first_sample(run: &FinishedRun) -> Result<f64> {
    let (_, line) = run.logged("first sample after the start")?;
    let number = line.split("milliseconds=").nth(1).and_then(|number| number.trim().parse().ok());
    number.with_context(|| format!("no milliseconds in {line:?}"))
}

fn milliseconds(from: SystemTime, to: SystemTime) -> Result<f64> {
    let duration = to.duration_since(from).context("the system's clock was set back")?;
    Ok(duration.as_secs_f64() * 1000.0)
}

/// What a run with default options is charged.
fn memory(agent: &Path, directory: &Path, cgroup: &MemoryCgroup) -> Result<Vec<Figure>> {
    let running = once(cgroup.command(agent), directory, &["--duration=10s"])?;
    let (mut most, mut resident) = (Usage::default(), 0);
    let mut broken = None;
    running.watch(LOOK, |pid| {
        match cgroup.usage() {
            Ok(usage) => most = most.max(usage),
            Err(error) => broken = Some(error),
        }
        resident = peak_resident(pid).unwrap_or(0).max(resident);
    })?;
    if let Some(error) = broken {
        return Err(error);
    }
    let mebibytes = |bytes: u64| vec![bytes as f64 / MEBIBYTE];
    let kernel = cgroup.kernel_peak().or(most.kernel);
    Ok(vec![
        Figure::new(CGROUP_PEAK, "MiB", mebibytes(cgroup.peak().unwrap_or(most.total))).aim(64.0),
        Figure::new("  peak without inactive file", "MiB", mebibytes(most.without_inactive_file)).aim(64.0),
        Figure::new("  peak of the kernel's part", "MiB", kernel.map_or_else(Vec::new, mebibytes)),
        Figure::new("resident memory of the process, peak (VmHWM)", "MiB", mebibytes(resident)),
    ])
}

/// Bytes; `None` once the process has ended.
fn peak_resident(pid: u32) -> Option<u64> {
    parse_peak_resident(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse_peak_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// What the kernel says a run of the sampling program takes.
fn sample_cost(agent: &Path, directory: &Path) -> Result<Vec<Figure>> {
    let stats = BpfStats::enable()?;
    let running =
        once(Command::new(agent), directory, &["--duration=10s", "--profilers=cpu", "--format=json"])?;
    let mut runs = ProgramRuns::default();
    let finished = running.watch(LOOK, |pid| runs = ProgramRuns::of_sampler(pid).unwrap_or(runs))?;
    drop(stats);
    let books = finished.profile()?.accounting;
    let ratio =
        |part: u64, whole: u64| if whole == 0 { Vec::new() } else { vec![part as f64 / whole as f64] };
    let per_run = ratio(runs.run_time_ns, runs.runs);
    let runs_counted = format!("eBPF program, a run ({} runs)", runs.runs);
    Ok(vec![
        Figure::new(runs_counted, "ns", per_run),
        Figure::new("  of these on an idle CPU", "%", ratio(100 * books.idle, books.ticks)),
        Figure::new("  frames a sample", "", ratio(books.frames, books.emitted)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line of `/proc/PID/status`, in bytes; a zombie has none.
    #[test]
    fn peak_resident_memory_is_read() {
        let status = "Name:\tagent\nVmPeak:\t  300 kB\nVmHWM:\t   12345 kB\nVmRSS:\t 9 kB\n";
        assert_eq!(parse_peak_resident(status), Some(12_641_280));
        assert_eq!(parse_peak_resident("Name:\tagent\nState:\tZ (zombie)\n"), None);
        assert!(peak_resident(std::process::id()).is_some_and(|bytes| bytes > 100_000));
    }
}
