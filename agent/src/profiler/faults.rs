//! The page-fault profiler: the kernel's own event on every online CPU, one fault in so many sampled.
//!
//! How many faults there were is known from outside the program: the events count them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use agent_ebpf::FaultCounters;

use crate::kernel::counters::CounterMap;
use crate::kernel::perf_event::{PerfEvent, PerfEventError};
use crate::kernel::programs::{FaultSampling, Programs, ProgramsError};

/// Runs of the program are a chance of this in 2³² while there are two events.
const EVEN: u64 = 1 << 31;

/// The page-fault profiler could not be started or read.
#[derive(Debug, thiserror::Error)]
pub enum FaultProfilerError {
    /// An event could not be opened or used.
    #[error(transparent)]
    Event(#[from] PerfEventError),
    /// The program or one of its maps could not be used.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
}

impl FaultSampling {
    /// One fault in `period` or so, at least 1. Two events with neighbouring primes for periods, of whose firings chance takes half: a
    /// pattern in a task's faults is hit at all its places alike, unless it repeats after a multiple of one of the primes, and then
    /// the other's firings are right.
    pub fn around(period: u32) -> Self {
        if period <= 1 {
            return Self { periods: [1, 0], kept: 1 << 32 };
        }
        let is_prime = |number: &u64| {
            (2..*number).take_while(|by| by * by <= *number).all(|by| !number.is_multiple_of(by))
        };
        let below = (2..=u64::from(period)).rev().find(is_prime).unwrap_or(2);
        // There is a prime between a number and its double (Bertrand's postulate).
        let above = (below + 1..=2 * below).find(is_prime).unwrap_or(below + 1);
        Self { periods: [below, above], kept: EVEN }
    }

    /// How many faults a sample stands for.
    pub fn mean(&self) -> f64 {
        let rate: f64 = self.running().map(|period| 1.0 / period as f64).sum();
        1.0 / (rate * self.share())
    }

    /// The share of the program's runs that take a sample.
    fn share(&self) -> f64 {
        self.kept as f64 / (1u64 << 32) as f64
    }

    fn running(&self) -> impl Iterator<Item = u64> {
        self.periods.into_iter().filter(|period| *period > 0)
    }
}

/// One CPU's books: how often its events should have run the program, and what the program counted.
///
/// `due == counters.fired + kernel_skipped`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FaultLedger {
    /// Page faults.
    pub faults: u64,
    /// How often the program should have run: each event's count ÷ its period.
    pub due: u64,
    /// What the program counted.
    pub counters: FaultCounters,
    /// Runs that the kernel left out.
    pub kernel_skipped: u64,
}

impl FaultLedger {
    fn new(faults: u64, due: u64, counters: FaultCounters) -> Self {
        let due = due.max(counters.fired);
        Self { faults, due, counters, kernel_skipped: due - counters.fired }
    }

    /// How many faults a sample of this CPU stands for; what was lost is taken to have been like the rest.
    pub fn weight(&self, sampling: FaultSampling) -> f64 {
        let FaultCounters { not_selected, emitted, ring_full, scratch_busy, .. } = self.counters;
        let known = (not_selected + emitted) as f64;
        let lost = (ring_full + scratch_busy) as f64 + self.kernel_skipped as f64 * sampling.share();
        let missing = if known > 0.0 { lost / known } else { 0.0 };
        sampling.mean() * (1.0 + missing)
    }
}

/// One CPU's events, with their periods.
struct CpuEvents {
    cpu: u32,
    events: Vec<(u64, PerfEvent)>,
}

impl CpuEvents {
    fn open(cpu: u32, sampling: FaultSampling) -> Result<Self, PerfEventError> {
        let open = |period| Ok((period, PerfEvent::page_faults(cpu, period)?));
        Ok(Self { cpu, events: sampling.running().map(open).collect::<Result<_, _>>()? })
    }

    /// Faults, and how often the events should have fired.
    fn counts(&self) -> Result<(u64, u64), PerfEventError> {
        let (mut faults, mut due) = (0, 0);
        for (period, event) in &self.events {
            let count = event.timed_count()?.count;
            faults = count.max(faults);
            due += count / period;
        }
        Ok((faults, due))
    }
}

/// A running page-fault profiler.
pub struct FaultProfiler {
    sampling: FaultSampling,
    running: Vec<CpuEvents>,
    /// What events counted that are closed by now, by CPU: faults, and due runs.
    retired: BTreeMap<u32, (u64, u64)>,
    /// For how long each running event was enabled at the last look, and when that was, by CPU.
    seen: HashMap<u32, (u64, Instant)>,
    counters: CounterMap<FaultCounters>,
}

impl FaultProfiler {
    /// Loads the program, opens the events of each of `cpus` and lets them fire.
    pub fn start(
        programs: &mut Programs,
        cpus: &BTreeSet<u32>,
        sampling: FaultSampling,
    ) -> Result<Self, FaultProfilerError> {
        let counters = programs.take_fault_counters()?;
        let (running, retired, seen) = Default::default();
        let mut profiler = Self { sampling, running, retired, seen, counters };
        profiler.follow_cpus(programs, cpus)?;
        Ok(profiler)
    }

    /// CPUs whose faults are sampled.
    pub fn cpus(&self) -> BTreeSet<u32> {
        self.running.iter().map(|running| running.cpu).collect()
    }

    /// Samples on exactly the CPUs in `online` from now on, but for those that are offline again: the next list will say so.
    pub fn follow_cpus(
        &mut self,
        programs: &mut Programs,
        online: &BTreeSet<u32>,
    ) -> Result<(), FaultProfilerError> {
        let (stay, gone): (Vec<_>, Vec<_>) =
            self.running.drain(..).partition(|running| online.contains(&running.cpu));
        self.running = stay;
        for gone in gone {
            let (faults, due) = gone.counts()?;
            let retired = self.retired.entry(gone.cpu).or_default();
            *retired = (retired.0 + faults, retired.1 + due);
            self.seen.remove(&gone.cpu);
        }
        for cpu in online.difference(&self.cpus()) {
            let opened = match CpuEvents::open(*cpu, self.sampling) {
                Err(error) if error.cpu_is_offline() => {
                    tracing::info!(cpu, "the CPU went offline before its page faults could be sampled");
                    continue;
                }
                opened => opened?,
            };
            for (_, event) in &opened.events {
                event.attach(programs.load_fault_sampler()?)?;
                event.enable()?;
            }
            self.running.push(opened);
        }
        Ok(())
    }

    /// CPUs whose events have stood still since the last call, if only for a while: see
    /// [`CpuProfiler::stopped_cpus`](crate::profiler::cpu::CpuProfiler::stopped_cpus).
    pub fn stopped_cpus(&mut self) -> Result<BTreeSet<u32>, FaultProfilerError> {
        let mut stopped = BTreeSet::new();
        for CpuEvents { cpu, events } in &self.running {
            let Some((_, event)) = events.first() else { continue };
            let before = Instant::now();
            let enabled = event.timed_count()?.enabled;
            if let Some((last, since)) = self.seen.insert(*cpu, (enabled, Instant::now()))
                && u128::from(enabled.saturating_sub(last)) < (before - since).as_nanos() / 100 * 99
            {
                stopped.insert(*cpu);
            }
        }
        Ok(stopped)
    }

    /// Stops the events, and says what each CPU's did.
    pub fn stop(&mut self) -> Result<BTreeMap<u32, FaultLedger>, FaultProfilerError> {
        for (_, event) in self.running.iter().flat_map(|running| &running.events) {
            event.disable()?;
        }
        let mut counts = self.retired.clone();
        for running in &self.running {
            let (faults, due) = running.counts()?;
            let sum = counts.entry(running.cpu).or_default();
            *sum = (sum.0 + faults, sum.1 + due);
        }
        let ledger = |(cpu, (faults, due))| (cpu, FaultLedger::new(faults, due, self.counters.at(cpu)));
        Ok(counts.into_iter().map(ledger).collect())
    }

    /// Which faults are sampled.
    pub fn sampling(&self) -> FaultSampling {
        self.sampling
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The periods are different primes around the one that was asked for, and the mean is near it; with 1, every fault is sampled.
    #[test]
    fn periods_are_primes() {
        assert_eq!(FaultSampling::around(64).periods, [61, 67]);
        assert!((FaultSampling::around(64).mean() - 63.86).abs() < 0.01);
        assert_eq!(FaultSampling::around(2).periods, [2, 3]);
        assert_eq!(FaultSampling::around(1000).periods, [997, 1009]);
        let every = FaultSampling::around(1);
        assert_eq!((every.periods, every.kept), ([1, 0], 1 << 32));
        assert!((every.mean() - 1.0).abs() < 1e-9);
    }

    /// Whatever the length of a pattern in a task's faults, all its places are hit alike by either event, and chance drops half: the
    /// expected shares are exact. Simulated for patterns up to 60 faults long.
    #[test]
    fn patterns_are_hit_everywhere() {
        for length in 1..=60 {
            for period in FaultSampling::around(64).periods {
                let places: BTreeSet<u64> = (1..=length).map(|firing| firing * period % length).collect();
                assert_eq!(places.len() as u64, length, "{period}");
            }
        }
    }

    /// What was lost raises the weight of what was not: of runs that the kernel left out, half would have been samples.
    #[test]
    fn losses_raise_the_weight() {
        let sampling = FaultSampling::around(64);
        let counters = FaultCounters {
            fired: 200,
            passed_over: 100,
            not_selected: 10,
            emitted: 70,
            ring_full: 20,
            ..FaultCounters::default()
        };
        let ledger = FaultLedger::new(64_000, 240, counters);
        assert_eq!(ledger.kernel_skipped, 40);
        assert!((ledger.weight(sampling) - sampling.mean() * 1.5).abs() < 1e-9);
        let quiet = FaultLedger::new(0, 0, FaultCounters::default());
        assert!((quiet.weight(sampling) - sampling.mean()).abs() < 1e-9);
    }
}
