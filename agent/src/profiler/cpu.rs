//! The CPU profiler: a `cpu-clock` event on every online CPU.
//!
//! What should have been sampled is known from outside the program: each event counts the nanoseconds for which it
//! was enabled, and should have fired once a period; and the kernel measures for how long each CPU was idle.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Instant;

use agent_ebpf::CpuCounters;

use crate::kernel::counters::CounterMap;
use crate::kernel::cpu_time::{self, CpuTime};
use crate::kernel::perf_event::{PerfEvent, PerfEventError};
use crate::kernel::programs::{Programs, ProgramsError};
use crate::profiler::cpu_ledger::CpuLedger;

/// The CPU profiler could not be started or read.
#[derive(Debug, thiserror::Error)]
pub enum CpuProfilerError {
    /// An event could not be opened or used.
    #[error(transparent)]
    Event(#[from] PerfEventError),
    /// The program or one of its maps could not be used.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// The CPUs' idle times could not be read.
    #[error("cannot read /proc/stat: {0}")]
    IdleTimes(#[source] io::Error),
}

/// A running CPU profiler.
pub struct CpuProfiler {
    period: u64,
    running: Vec<PerfEvent>,
    /// Nanoseconds that events counted which are closed by now: their CPU went offline.
    retired: BTreeMap<u32, u64>,
    /// Each CPU's times when its event began.
    began: BTreeMap<u32, CpuTime>,
    /// What each running event had counted at the last look, and when that was, by CPU.
    seen: BTreeMap<u32, (u64, Instant)>,
    counters: CounterMap<CpuCounters>,
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
        let (running, retired, began, seen) = Default::default();
        let mut profiler = Self { period, running, retired, began, seen, counters };
        profiler.follow_cpus(programs, cpus)?;
        Ok(profiler)
    }

    /// CPUs that are sampled.
    pub fn cpus(&self) -> BTreeSet<u32> {
        self.running.iter().map(PerfEvent::cpu).collect()
    }

    /// Samples on exactly the CPUs in `online` from now on, but for those that are offline again: the next list will say so.
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
            self.seen.remove(&event.cpu());
        }
        let sampled = self.cpus();
        let times = cpu_time::read().map_err(CpuProfilerError::IdleTimes)?;
        for cpu in online.difference(&sampled) {
            let event = match PerfEvent::cpu_clock(*cpu, self.period) {
                Err(error) if error.cpu_is_offline() => {
                    tracing::info!(cpu, "the CPU went offline before it could be sampled");
                    continue;
                }
                opened => opened?,
            };
            event.attach(programs.load_cpu_sampler()?)?;
            event.enable()?;
            self.running.push(event);
            // Of one that returned, what it did since its first start is asked for.
            self.began.entry(*cpu).or_insert_with(|| times.get(cpu).copied().unwrap_or_default());
        }
        Ok(())
    }

    /// CPUs whose timer has stood still since the last call, if only for a while. The kernel switches the events of a CPU off
    /// for good when it goes offline (`perf_event_exit_cpu`), however soon it returns; a timer that is on counts idle time too.
    pub fn stopped_cpus(&mut self) -> Result<BTreeSet<u32>, CpuProfilerError> {
        let mut stopped = BTreeSet::new();
        for event in &self.running {
            let before = Instant::now();
            let count = event.count()?;
            // Between the end of one reading and the beginning of the next, a timer that runs counts no less than passes;
            // a hundredth is for two clocks that differ.
            if let Some((last, since)) = self.seen.insert(event.cpu(), (count, Instant::now()))
                && u128::from(count.saturating_sub(last)) < (before - since).as_nanos() / 100 * 99
            {
                stopped.insert(event.cpu());
            }
        }
        Ok(stopped)
    }

    /// Stops the timers. The ledger is exact afterwards.
    pub fn stop(&mut self) -> Result<(), CpuProfilerError> {
        Ok(self.running.iter().try_for_each(PerfEvent::disable)?)
    }

    /// Nanoseconds between two samples of a CPU.
    pub fn period(&self) -> u64 {
        self.period
    }

    /// What each CPU's timer did so far. Read it right after [`CpuProfiler::stop`].
    pub fn ledger(&self) -> Result<BTreeMap<u32, CpuLedger>, CpuProfilerError> {
        let times = cpu_time::read().map_err(CpuProfilerError::IdleTimes)?;
        let mut enabled = self.retired.clone();
        for event in &self.running {
            *enabled.entry(event.cpu()).or_default() += event.count()?;
        }
        let ledger = enabled.into_iter().map(|(cpu, enabled)| {
            let time = times.get(&cpu).zip(self.began.get(&cpu)).map(|(now, began)| now.since(*began));
            let counters = self.counters.at(cpu);
            let ledger = match time {
                // A CPU that was offline in between has no idle time that could be held against its events.
                Some(time) if self.retired.contains_key(&cpu) => {
                    CpuLedger::of_returned(enabled, self.period, counters, time.busy)
                }
                time => CpuLedger::new(enabled, self.period, counters, time),
            };
            (cpu, ledger)
        });
        Ok(ledger.collect())
    }
}
