//! The CPU profiler: a `cpu-clock` event on every online CPU.
//!
//! What should have been sampled is known from the events themselves: each counts the nanoseconds for which
//! it was enabled, and should have fired once a period. What the program counted is held against that.

use std::collections::{BTreeMap, BTreeSet};

use agent_ebpf::CpuCounters;

use crate::kernel::counters::CounterMap;
use crate::kernel::perf_event::{PerfEvent, PerfEventError};
use crate::kernel::programs::{Programs, ProgramsError};

/// The CPU profiler could not be started.
#[derive(Debug, thiserror::Error)]
pub enum CpuProfilerError {
    /// An event could not be opened or used.
    #[error(transparent)]
    Event(#[from] PerfEventError),
    /// The program or one of its maps could not be used.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
}

/// A running CPU profiler.
pub struct CpuProfiler {
    period: u64,
    running: Vec<PerfEvent>,
    /// Nanoseconds that events counted which are closed by now: their CPU went offline.
    retired: BTreeMap<u32, u64>,
    counters: CounterMap,
}

/// What one CPU's timer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuLedger {
    /// Nanoseconds for which the timer was enabled there.
    pub enabled: u64,
    /// How often it should have fired.
    pub ticks: u64,
    /// What the program counted.
    pub counters: CpuCounters,
}

impl CpuProfiler {
    /// Loads the program, opens an event on each of `cpus` and lets it fire `frequency` times a second.
    pub fn start(
        programs: &mut Programs,
        cpus: &BTreeSet<u32>,
        frequency: u32,
    ) -> Result<Self, CpuProfilerError> {
        let period = 1_000_000_000 / u64::from(frequency.max(1));
        let counters = programs.take_cpu_counters()?;
        let mut profiler = Self { period, running: Vec::new(), retired: BTreeMap::new(), counters };
        profiler.follow_cpus(programs, cpus)?;
        Ok(profiler)
    }

    /// Samples on exactly the CPUs in `online` from now on.
    pub fn follow_cpus(
        &mut self,
        programs: &mut Programs,
        online: &BTreeSet<u32>,
    ) -> Result<(), CpuProfilerError> {
        let (stay, gone): (Vec<_>, Vec<_>) =
            self.running.drain(..).partition(|event| online.contains(&event.cpu()));
        self.running = stay;
        for event in gone {
            *self.retired.entry(event.cpu()).or_default() += event.count()?;
        }
        let sampled: BTreeSet<u32> = self.running.iter().map(PerfEvent::cpu).collect();
        for cpu in online.difference(&sampled) {
            let event = PerfEvent::cpu_clock(*cpu, self.period)?;
            event.attach(programs.load_cpu_sampler()?)?;
            event.enable()?;
            self.running.push(event);
        }
        Ok(())
    }

    /// Stops the timers. The ledger is exact afterwards.
    pub fn stop(&mut self) -> Result<(), CpuProfilerError> {
        Ok(self.running.iter().try_for_each(PerfEvent::disable)?)
    }

    /// Nanoseconds between two samples of a CPU.
    pub fn period(&self) -> u64 {
        self.period
    }

    /// What each CPU's timer did so far.
    pub fn ledger(&self) -> Result<BTreeMap<u32, CpuLedger>, CpuProfilerError> {
        let mut enabled = self.retired.clone();
        for event in &self.running {
            *enabled.entry(event.cpu()).or_default() += event.count()?;
        }
        let ledger = enabled.into_iter().map(|(cpu, enabled)| {
            (cpu, CpuLedger::new(enabled, self.period, self.counters.on_cpu(cpu)))
        });
        Ok(ledger.collect())
    }
}

impl CpuLedger {
    /// The first tick comes one period after the start. A timer that fired more often than its clock says (a tick
    /// just when the clock was read, or on each side of a restart) was right to.
    fn new(enabled: u64, period: u64, counters: CpuCounters) -> Self {
        Self { enabled, ticks: (enabled / period).max(counters.fired), counters }
    }

    /// Nanoseconds that each sample in the profile stands for: the CPU's time, shared out over the ticks that
    /// became known (samples and idle ticks). More than the period when ticks were lost: the lost ones are taken to
    /// have been like the others.
    pub fn weight(&self, period: u64) -> f64 {
        let CpuCounters { fired, ring_full, scratch_busy, .. } = self.counters;
        let known = fired.saturating_sub(ring_full + scratch_busy);
        if known == 0 { period as f64 } else { period as f64 * self.ticks as f64 / known as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lost ticks are shared out over the known ones; a CPU that lost none weighs a period a sample.
    #[test]
    fn lost_ticks_raise_the_weight() {
        let counters = CpuCounters { fired: 80, idle: 20, emitted: 50, ring_full: 10, ..CpuCounters::default() };
        let ledger = CpuLedger::new(1000, 10, counters);
        assert_eq!(ledger.ticks, 100);
        assert!((ledger.weight(10) - 10.0 * 100.0 / 70.0).abs() < 1e-9);
        let whole = CpuLedger::new(1000, 10, CpuCounters { fired: 100, ..CpuCounters::default() });
        assert!((whole.weight(10) - 10.0).abs() < 1e-9);
    }

    /// A timer never has fewer ticks than runs.
    #[test]
    fn a_tick_more_than_the_clock_says() {
        let ledger = CpuLedger::new(995, 10, CpuCounters { fired: 100, ..CpuCounters::default() });
        assert_eq!(ledger.ticks, 100);
    }
}
