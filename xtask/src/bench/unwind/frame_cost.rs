//! Nanoseconds that the sampling program takes for a stack of known depth.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::start;
use crate::bench::bpf_stats::{BpfStats, ProgramRuns};
use crate::bench::figure::Figure;
use crate::process_group::ProcessGroup;
use crate::workload;

/// Depths that are measured; the last is the most that a record holds.
const DEPTHS: [u32; 4] = [10, 30, 60, 127];
/// Frames of `RECURSION` around `down`: `burn`, `main`, and three of the C library's start.
const AROUND: u32 = 5;
/// The depth of which the design speaks.
const TYPICAL: u32 = 60;
const AIM_NS: f64 = 300.0;
/// Frequency of the timed runs: many samples in little time, and no divisor of the kernel's tick.
const FREQUENCY: &str = "--frequency=997";
const DURATION: &str = "--duration=2s";
/// Between two looks at a run.
const LOOK: Duration = Duration::from_millis(20);

/// Calls itself as deep as its argument says, and burns the CPU there. Each frame saves registers and has locals.
const RECURSION: &str = "\
#include <stdio.h>
#include <stdlib.h>
static volatile unsigned long sink;
__attribute__((noipa)) static void burn(void) {
    for (int i = 0; i < 100000000; i++) sink++;
}
__attribute__((noipa)) static unsigned long down(int depth, unsigned long a, unsigned long b) {
    volatile unsigned long local[4] = {a, b, a ^ b, depth};
    if (depth <= 1)
        for (;;) burn();
    unsigned long below = down(depth - 1, local[2], local[0]);
    return below + a * local[depth & 3] + b;
}
int main(int count, char **words) {
    puts(\"ready\");
    fflush(stdout);
    return down(atoi(words[1]), count, 3);
}
";

/// What one run says.
struct Run {
    program: ProgramRuns,
    /// Samples that were taken.
    samples: u64,
    /// Their frames.
    frames: u64,
}

/// The figures; `runs` repetitions.
pub(super) fn measure(agent: &Path, directory: &Path, runs: u16) -> Result<Vec<Figure>> {
    let program = workload::compile(directory, "recursion", RECURSION, &["-O2", "-fomit-frame-pointer"])?;
    let program = program.context("no gcc")?;
    let _stats = BpfStats::enable()?;
    eprintln!("cost of a frame: {runs} runs at each of {DEPTHS:?} frames");
    let mut nothing_costs = Vec::new();
    let mut costs = vec![Vec::new(); DEPTHS.len()];
    for _ in 0..runs {
        let nothing = run_beside(agent, directory, &[std::process::id()])?;
        let nothing = nothing.program.run_time_ns as f64 / nothing.program.runs.max(1) as f64;
        nothing_costs.push(nothing);
        for (depth, costs) in DEPTHS.into_iter().zip(&mut costs) {
            costs.push(at_depth(agent, directory, &program, depth)?.cost(nothing));
        }
    }
    Ok(figures(&nothing_costs, &costs))
}

/// Has a process on each CPU burn at `depth` and samples just these.
fn at_depth(agent: &Path, directory: &Path, program: &Path, depth: u32) -> Result<Run> {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let start =
        |_| ProcessGroup::start_and_await_line(Command::new(program).arg((depth - AROUND).to_string()));
    let burning = (0..cpus).map(start).collect::<Result<Vec<_>>>()?;
    let pids: Vec<u32> = burning.iter().map(ProcessGroup::pid).collect();
    let run = run_beside(agent, directory, &pids)?;
    ensure!(run.samples > 100, "only {} samples at {depth} frames", run.samples);
    let measured = run.frames as f64 / run.samples as f64;
    // Samples in the kernel have its frames too.
    ensure!(
        (measured - f64::from(depth)).abs() < 2.0,
        "stacks of {depth} frames were wanted, {measured:.1} were found"
    );
    Ok(run)
}

fn run_beside(agent: &Path, directory: &Path, pids: &[u32]) -> Result<Run> {
    let mut arguments = vec![FREQUENCY.to_owned(), DURATION.to_owned()];
    arguments.extend(pids.iter().map(|pid| format!("--pid={pid}")));
    let running = start(agent, directory, &arguments)?;
    let mut program = ProgramRuns::default();
    let finished = running.watch(LOOK, |pid| program = ProgramRuns::of_sampler(pid).unwrap_or(program))?;
    let books = finished.profile()?.accounting;
    Ok(Run { program, samples: books.emitted, frames: books.frames })
}

impl Run {
    /// Nanoseconds a sample, when each run of the program that took none cost `nothing`.
    fn cost(&self, nothing: f64) -> f64 {
        let others = self.program.runs.saturating_sub(self.samples) as f64;
        (self.program.run_time_ns as f64 - others * nothing) / self.samples.max(1) as f64
    }
}

fn figures(nothing: &[f64], costs: &[Vec<f64>]) -> Vec<Figure> {
    let mut figures = vec![Figure::new("eBPF program, run without a sample", "ns", nothing.to_vec())];
    for (depth, costs) in DEPTHS.into_iter().zip(costs) {
        let each = costs.iter().map(|cost| cost / f64::from(depth)).collect();
        let each = Figure::new("  of that, for each frame", "ns", each);
        figures.push(Figure::new(
            format!("eBPF program, sample of {depth} user frames"),
            "ns",
            costs.clone(),
        ));
        figures.push(if depth == TYPICAL { each.aim(AIM_NS) } else { each });
    }
    let runs = (0..nothing.len()).map(|run| costs.iter().map(|costs| costs[run]).collect::<Vec<_>>());
    let (slopes, fixed): (Vec<_>, Vec<_>) = runs.map(|costs| line(&DEPTHS.map(f64::from), &costs)).unzip();
    figures.push(Figure::new("eBPF program, each further frame", "ns", slopes).aim(AIM_NS));
    figures.push(Figure::new("  and what a sample costs besides", "ns", fixed));
    figures
}

/// Slope and height at 0 of the line with the least squared distance from the points.
fn line(x: &[f64], y: &[f64]) -> (f64, f64) {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (middle, height) = (mean(x), mean(y));
    let products: f64 = x.iter().zip(y).map(|(x, y)| (x - middle) * (y - height)).sum();
    let squares: f64 = x.iter().map(|x| (x - middle) * (x - middle)).sum();
    let slope = products / squares;
    (slope, height - slope * middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on a line give it back.
    #[test]
    fn a_line_is_found() {
        let (slope, fixed) = line(&[10.0, 30.0, 60.0, 127.0], &[1010.0, 3010.0, 6010.0, 12710.0]);
        assert!((slope - 100.0).abs() < 1e-9 && (fixed - 10.0).abs() < 1e-6, "{slope} {fixed}");
    }

    /// Runs without a sample do not dilute what a sample costs.
    #[test]
    fn idle_runs_are_taken_off() {
        let program = ProgramRuns { run_time_ns: 900 * 200 + 100 * 9_000, runs: 1000 };
        let cost = Run { program, samples: 100, frames: 6000 }.cost(200.0);
        assert!((cost - 9_000.0).abs() < 1e-9, "{cost}");
    }
}
