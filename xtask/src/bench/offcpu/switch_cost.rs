//! What the programs at `sched_switch` and `sched_waking` cost: timing and stacks apart.

use anyhow::{Context, Result};

use crate::bench::bpf_stats::{ProgramRuns, TracepointRuns};
use crate::bench::log_field::field;

/// Counted by the programs themselves, over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counters {
    /// Times that the switch program ran.
    pub(super) switches: u64,
    /// Waits that began.
    pub(super) begun: u64,
    /// Stacks of those who wait, lost ones included.
    pub(super) stacks: u64,
    /// Stacks that were not taken for lack of time, although chance had chosen them.
    pub(super) over_budget: u64,
    /// Stacks of wakers, lost ones included.
    pub(super) wakers: u64,
    /// Nanoseconds that went into stacks of both kinds.
    pub(super) stack_nanoseconds: u64,
}

impl Counters {
    /// From the agent's log.
    pub(super) fn read(log: &str) -> Result<Self> {
        let line = log.lines().rfind(|line| line.contains("SwitchCounters {"));
        let line = line.context("the agent did not log what its programs counted")?;
        // Before the structure stands the kernel's own count, which has the same name as the first member.
        let (_, members) = line.split_once("SwitchCounters {").unwrap_or_default();
        let number = |name| field(members, name).with_context(|| format!("no {name} in {line:?}"));
        Ok(Self {
            switches: number("switches")?,
            begun: number("begun")?,
            stacks: number("stacks")? + number("stacks_ring_full")?,
            over_budget: number("over_budget")?,
            wakers: number("wakers")? + number("wakers_ring_full")?,
            stack_nanoseconds: number("stack_nanoseconds")?,
        })
    }

    /// Percent of the waits whose stacks were taken.
    pub(super) fn probability(&self) -> f64 {
        100.0 * self.stacks as f64 / self.begun.max(1) as f64
    }

    /// Nanoseconds for a stack.
    pub(super) fn each_stack(&self) -> f64 {
        self.stack_nanoseconds as f64 / (self.stacks + self.wakers).max(1) as f64
    }
}

/// Nanoseconds that a run of each program takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cost {
    /// The switch program, without a stack.
    pub(super) timing: f64,
    /// The switch program, all runs.
    pub(super) switch: f64,
    /// The waking program, without a stack.
    pub(super) look: f64,
    /// The waking program, all runs.
    pub(super) waking: f64,
    /// Runs of the switch program by the kernel's count.
    pub(super) runs: u64,
}

impl Cost {
    /// From the kernel's account and the programs' own.
    pub(super) fn of(programs: &TracepointRuns, counters: &Counters) -> Result<Self> {
        let at = |tracepoint| {
            let program = programs.at(tracepoint);
            program.with_context(|| format!("the kernel shows no program at {tracepoint}"))
        };
        Ok(Self::from(at("sched_switch")?, at("sched_waking")?, counters))
    }

    /// A stack's time begins where the program does, so that a run with a stack is nothing but a stack. The programs do not say
    /// how much of it was for wakers: their stacks are taken to cost what the others do.
    fn from(switch: ProgramRuns, waking: ProgramRuns, counters: &Counters) -> Self {
        let without = |program: ProgramRuns, stacks: u64| {
            let rest = program.run_time_ns as f64 - stacks as f64 * counters.each_stack();
            rest / program.runs.saturating_sub(stacks).max(1) as f64
        };
        let each = |program: ProgramRuns| program.run_time_ns as f64 / program.runs.max(1) as f64;
        Self {
            timing: without(switch, counters.stacks),
            switch: each(switch),
            look: without(waking, counters.wakers),
            waking: each(waking),
            runs: switch.runs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "T DEBUG agent::run::once: switches switches=905 counters=SwitchCounters { switches: 900, idle: 100, \
        not_selected: 0, ended: 2, begun: 798, table_full: 0, stacks: 70, stacks_ring_full: 10, over_budget: 5, waits_ring_full: 0, \
        stack_nanoseconds: 500000, epoch: 0, epoch_nanoseconds: 0, quota: 0, early: 3, wakings: 40, wakers: 19, wakers_ring_full: 1, \
        wakers_over_budget: 4, reserved: [0, 0, 0, 0, 0] } tasks=2";

    /// The structure's members count, not the field before it nor members whose names only end alike; lost stacks were taken too.
    #[test]
    fn counters_are_read() {
        let counters = Counters::read(&format!("first line\n{LINE}\nlast line")).unwrap();
        let expected = Counters {
            switches: 900,
            begun: 798,
            stacks: 80,
            over_budget: 5,
            wakers: 20,
            stack_nanoseconds: 500_000,
        };
        assert_eq!(counters, expected);
        assert!((counters.each_stack() - 5000.0).abs() < 1e-9);
        assert!((counters.probability() - 100.0 * 80.0 / 798.0).abs() < 1e-9);
        assert!(Counters::read("nothing").is_err());
        assert!(Counters::read(&LINE.replace("begun", "began")).is_err());
    }

    /// Runs with stacks are taken off by what stacks cost.
    #[test]
    fn timing_and_stacks_are_told_apart() {
        let counters = Counters::read(LINE).unwrap();
        let switch = ProgramRuns { run_time_ns: 80 * 5000 + 820 * 150, runs: 900 };
        let waking = ProgramRuns { run_time_ns: 20 * 5000 + 480 * 60, runs: 500 };
        let cost = Cost::from(switch, waking, &counters);
        assert!((cost.timing - 150.0).abs() < 1e-9 && (cost.look - 60.0).abs() < 1e-9, "{cost:?}");
        assert!((cost.switch - 523_000.0 / 900.0).abs() < 1e-9 && cost.runs == 900, "{cost:?}");
        assert!((cost.waking - 128_800.0 / 500.0).abs() < 1e-9, "{cost:?}");
    }
}
