//! `cargo xtask bench offcpu`: what timing every switch costs threads that do nothing but wait for each other, and system calls.

mod load;
mod switch_cost;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use self::load::{Done, Load};
use self::switch_cost::{Cost, Counters};
use super::bpf_stats::{BpfStats, TracepointRuns};
use super::figure::{Figure, table};
use crate::agent_run::{self, RunningAgent};
use crate::seconds;

/// Measure the off-CPU and mutex profilers: two threads on one CPU hand a byte to and fro through pipes, without the agent, with
/// `--profilers offcpu` and with `--profilers offcpu,mutex`, by turns; then one makes system calls that do nothing.
///
/// The agent profiles this process only. What its programs cost is the kernel's account of their run time (kernel.bpf_stats_enabled), in runs
/// of their own, because counting costs too; of that, stacks cost what the programs say they do, and timing is the rest. Waits in the profile stand beside
/// the process's switches by the kernel's count (getrusage).
#[derive(Args)]
pub(crate) struct Options {
    /// Repetitions
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    turns: u16,
    /// How long the threads play in each
    #[arg(long, value_name = "SECONDS", default_value = "1.5s", value_parser = seconds::parse)]
    seconds: f64,
    /// Percent of a CPU that stacks may take
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    offcpu_budget: f64,
}

const OFFCPU: &str = "offcpu";
const BOTH: &str = "offcpu,mutex";
/// Seconds that the window is longer than the play: for the system calls, and on a busy machine.
const SPARE: f64 = 1.5;
/// Between two looks at a run.
const LOOK: Duration = Duration::from_millis(20);
/// How long the agent may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where things are.
struct Bench<'a> {
    agent: PathBuf,
    program: PathBuf,
    directory: &'a Path,
    options: &'a Options,
}

/// A turn beside the agent.
struct Beside {
    done: Done,
    counters: Counters,
    programs: TracepointRuns,
    /// Waits in the profile in which a thread slept, and in which it could have run.
    slept: u64,
    runnable: u64,
    /// Waits that the agent says it lost.
    lost: u64,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let agent = agent_run::build()?;
    let directory = tempfile::tempdir()?;
    let directory = directory.path();
    let bench = Bench { agent, program: load::compile(directory)?, directory, options };
    let (mut alone, mut offcpu, mut both, mut counted) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for turn in 1..=options.turns {
        eprintln!("turn {turn} of {}", options.turns);
        // Another one is first in each turn: what comes first would differ for that alone.
        for kind in 0..3 {
            match (turn + kind) % 3 {
                0 => alone.push(Load::start(&bench.program, options.seconds)?.play()?),
                1 => offcpu.push(bench.beside(OFFCPU, false)?),
                _ => both.push(bench.beside(BOTH, false)?),
            }
        }
        let _stats = BpfStats::enable()?;
        counted.push(bench.beside(BOTH, true)?);
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("waits, Linux {}, {} turns of {} s\n", kernel.trim(), options.turns, options.seconds);
    let mut figures = speed(&alone, &offcpu, &both);
    figures.extend(costs(&counted, options.offcpu_budget)?);
    figures.extend(syscalls(&alone, &both));
    print!("{}\n{}", table(&figures), totals(&[(OFFCPU, &offcpu), (BOTH, &both)]));
    Ok(())
}

impl Bench<'_> {
    /// A turn while the agent profiles the program by `profilers`; with `watched`, what the kernel says of its programs is read.
    fn beside(&self, profilers: &str, watched: bool) -> Result<Beside> {
        let Options { seconds, offcpu_budget, .. } = self.options;
        let mut load = Load::start(&self.program, *seconds)?;
        let window = seconds + SPARE;
        let mut command = Command::new(&self.agent);
        command.env("RUST_LOG", "info,agent::run=debug").args(["--once", "--format=json"]);
        command.arg(format!("--profilers={profilers}")).arg(format!("--duration={window}s"));
        command.arg(format!("--offcpu-budget={offcpu_budget}")).arg(format!("--pid={}", load.pid()));
        command.arg("--output").arg(self.directory);
        let running = RunningAgent::start(command, self.directory)?;
        let started = Instant::now();
        while !fs::read_to_string(self.directory.join("log"))?.contains("profiling has begun") {
            ensure!(started.elapsed() < PATIENCE, "the agent does not begin");
            std::thread::sleep(LOOK);
        }
        let began = Instant::now();
        let done = load.play()?;
        let took = began.elapsed().as_secs_f64();
        let mut programs = TracepointRuns::default();
        let finished = running.watch(LOOK, |pid| {
            if watched {
                programs.look(pid);
            }
        })?;
        let profile = finished.profile_of("offcpu")?;
        ensure!(
            took + LOOK.as_secs_f64() < profile.duration_seconds,
            "the program took {took:.1} s, longer than the window"
        );
        let (slept, runnable) = (profile.waits(load.pid(), "sleep"), profile.waits(load.pid(), "runnable"));
        let lost = profile.accounting.lost.values().sum();
        Ok(Beside { done, counters: Counters::read(&finished.log)?, programs, slept, runnable, lost })
    }
}

/// One value for each turn.
fn each<T>(turns: &[T], value: impl Fn(&T) -> f64) -> Vec<f64> {
    turns.iter().map(value).collect()
}

/// Which turn was disturbed least.
#[derive(Clone, Copy)]
enum Best {
    Least,
    Greatest,
}

/// `with` itself, and its best and its median in percent of those of `without`.
fn beside_each_other(without: &Figure, with: Figure, best: Best) -> Vec<Figure> {
    let mut figures = Vec::new();
    if let (Some(without), Some(with)) = (without.spread(), with.spread()) {
        let (name, at) = match best {
            Best::Least => ("  least of the least without", 0),
            Best::Greatest => ("  greatest of the greatest without", 2),
        };
        for (name, at) in [(name, at), ("  median of the median without", 1)] {
            figures.push(Figure::new(name, "%", vec![100.0 * with[at] / without[at]]));
        }
    }
    figures.insert(0, with);
    figures
}

fn speed(alone: &[Done], offcpu: &[Beside], both: &[Beside]) -> Vec<Figure> {
    let beside = [(OFFCPU, offcpu), (BOTH, both)];
    let switches = each(alone, Done::switches_per_second);
    let mut figures = vec![Figure::new("switches a second, without the agent", "1/s", switches)];
    for (profilers, turns) in beside {
        let switches = each(turns, |turn| turn.done.switches_per_second());
        figures.push(Figure::new(
            format!("switches a second, with --profilers {profilers}"),
            "1/s",
            switches,
        ));
    }
    let rate = Figure::new("rounds a second, without the agent", "1/s", each(alone, Done::rounds_per_second));
    let with = beside.map(|(profilers, turns)| {
        let rate = each(turns, |turn| turn.done.rounds_per_second());
        Figure::new(format!("rounds a second, with --profilers {profilers}"), "1/s", rate)
    });
    let compared: Vec<_> =
        with.into_iter().flat_map(|with| beside_each_other(&rate, with, Best::Greatest)).collect();
    figures.push(rate);
    figures.extend(compared);
    let round = Figure::new("CPU time of a round, without the agent", "ns", each(alone, Done::round));
    let with = beside.map(|(profilers, turns)| {
        let round = each(turns, |turn| turn.done.round());
        Figure::new(format!("CPU time of a round, with --profilers {profilers}"), "ns", round)
    });
    let compared: Vec<_> =
        with.into_iter().flat_map(|with| beside_each_other(&round, with, Best::Least)).collect();
    figures.push(round);
    figures.extend(compared);
    figures
}

fn costs(turns: &[Beside], budget: f64) -> Result<Vec<Figure>> {
    let costs = turns.iter().map(|turn| Cost::of(&turn.programs, &turn.counters));
    let costs = costs.collect::<Result<Vec<_>>>()?;
    for (cost, turn) in costs.iter().zip(turns) {
        // The last look may be a little before the end.
        let (runs, switches) = (cost.runs, turn.counters.switches);
        ensure!(
            runs.abs_diff(switches) * 50 <= switches,
            "the kernel counted {runs} runs of the switch program, the program {switches}"
        );
    }
    let share =
        |turn: &Beside| 100.0 * turn.counters.stack_nanoseconds as f64 / turn.done.nanoseconds.max(1) as f64;
    let over = |turn: &Beside| 100.0 * turn.counters.over_budget as f64 / turn.counters.begun.max(1) as f64;
    Ok(vec![
        Figure::new("sched_switch, a run without a stack (timing)", "ns", each(&costs, |cost| cost.timing)),
        Figure::new(
            "a stack, of whoever waits or wakes",
            "ns",
            each(turns, |turn| turn.counters.each_stack()),
        ),
        Figure::new("sched_switch, a run, stacks included", "ns", each(&costs, |cost| cost.switch)),
        Figure::new("sched_waking, a run without a stack", "ns", each(&costs, |cost| cost.look)),
        Figure::new("sched_waking, a run, stacks included", "ns", each(&costs, |cost| cost.waking)),
        Figure::new("waits whose stacks were taken", "%", each(turns, |turn| turn.counters.probability())),
        Figure::new("waits that were chosen, but over the budget", "%", each(turns, over)),
        Figure::new("stacks, share of the CPU that the threads play on", "%", each(turns, share)).aim(budget),
    ])
}

fn syscalls(alone: &[Done], both: &[Beside]) -> Vec<Figure> {
    let without = Figure::new("getppid(2), without the agent", "ns", each(alone, |done| done.syscall));
    let with = each(both, |turn| turn.done.syscall);
    let with = Figure::new(format!("getppid(2), with --profilers {BOTH}"), "ns", with);
    let compared = beside_each_other(&without, with, Best::Least);
    std::iter::once(without).chain(compared).collect()
}

/// A line for each turn: what the profile has, beside what the kernel told the process.
fn totals(turns: &[(&str, &[Beside])]) -> String {
    let head = format!(
        "{:<14} {:>10} {:>12} {:>10} {:>12} {:>10} {:>8}\n",
        "PROFILERS", "ROUNDS", "VOLUNTARY", "SLEEPS", "INVOLUNTARY", "RUNNABLE", "LOST"
    );
    let row = |profilers: &str, turn: &Beside| {
        let Beside { done, slept, runnable, lost, .. } = turn;
        let Done { rounds, voluntary, involuntary, .. } = done;
        format!(
            "{profilers:<14} {rounds:>10} {voluntary:>12} {slept:>10} {involuntary:>12} {runnable:>10} {lost:>8}\n"
        )
    };
    let rows = turns.iter().flat_map(|(profilers, turns)| turns.iter().map(|turn| row(profilers, turn)));
    let rows: String = rows.collect();
    format!(
        "switches of the process by the kernel's count, and waits in the profile (it also has those before and after the play)\n{head}{rows}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beside(rounds: u64) -> Beside {
        let done = Done {
            rounds,
            nanoseconds: 1_000_000_000,
            cpu: 1000,
            voluntary: 7,
            involuntary: 1,
            syscall: 60.0,
        };
        let programs = TracepointRuns::default();
        Beside { done, counters: Counters::default(), programs, slept: 8, runnable: 2, lost: 3 }
    }

    /// The best is compared with the best, the median with the median; without values nothing is.
    #[test]
    fn best_turns_and_medians_are_compared() {
        let without = Figure::new("without", "ns", vec![30.0, 10.0, 20.0]);
        let percent = |best| {
            let figures = beside_each_other(&without, Figure::new("", "ns", vec![15.0, 30.0, 90.0]), best);
            figures[1..].iter().map(|figure| figure.values[0]).collect::<Vec<_>>()
        };
        assert_eq!(percent(Best::Least), [150.0, 150.0]);
        assert_eq!(percent(Best::Greatest), [300.0, 150.0]);
        let one = || Figure::new("", "", vec![1.0]);
        assert_eq!(beside_each_other(&Figure::new("", "", vec![]), one(), Best::Least).len(), 1);
    }

    /// Without the agent comes first, and each set of profilers is compared with that.
    #[test]
    fn speeds_are_those_of_their_profilers() {
        let figures = speed(&[beside(100).done], &[beside(50)], &[beside(25)]);
        let rates: Vec<_> = figures[3..10].iter().map(|figure| figure.values[0]).collect();
        assert_eq!(rates, [100.0, 50.0, 50.0, 50.0, 25.0, 25.0, 25.0]);
        assert_eq!(
            figures[10..].iter().map(|figure| figure.values[0]).collect::<Vec<_>>(),
            [10.0, 20.0, 200.0, 200.0, 40.0, 400.0, 400.0]
        );
    }

    /// Without the kernel's account there is no cost.
    #[test]
    fn costs_need_the_kernels_account() {
        assert!(costs(&[beside(1)], 1.0).is_err());
    }

    /// Truth and profile stand side by side.
    #[test]
    fn totals_are_a_line_a_turn() {
        let text = totals(&[("offcpu", &[beside(11)])]);
        let last: Vec<_> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(last, ["offcpu", "11", "7", "8", "1", "2", "3"]);
        assert_eq!(text.lines().count(), 3);
    }
}
