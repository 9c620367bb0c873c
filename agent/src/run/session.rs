//! A profiling session: everything that is started, in the order in which it has to be, and read until it is stopped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use agent_ebpf::tables::{BLOCK_WORDS, MAX_RULES};

use crate::cli::{ProfileArgs, ProfilerName};
use crate::kernel::cpus;
use crate::kernel::programs::{FaultSampling, Programs, Selection, Sizes, Variant};
use crate::kernel::readiness::Readiness;
use crate::kernel::sideband::Sideband;
use crate::metrics::SelfMetrics;
use crate::process::module::ModuleTable;
use crate::process::resident::Resident;
use crate::process::table::ProcessTable;
use crate::profile::windows::Windows;
use crate::profiler::collector::{Collector, Sources, monotonic_now};
use crate::profiler::cpu::CpuProfiler;
use crate::profiler::cpu_ledger::CpuLedger;
use crate::profiler::faults::{FaultLedger, FaultProfiler, FaultProfilerError};
use crate::profiler::offcpu::{self, OffCpuProfiler, SelectedPids, SwitchLedger};
use crate::profiler::probe::{ProbePoint, ProbeProfiler};
use crate::run::error::RunError;
use crate::symbol::resolver::Resolver;
use crate::table_use::TableUse;
use crate::unwind::RuleTable;
use crate::unwind::arena::Arena;
use crate::unwind::unwinder::Unwinder;

/// Between two looks at rings that nobody woke us for.
const TURN: Duration = Duration::from_millis(100);
/// Between two looks at which CPUs are online.
const CPU_CHECK: Duration = Duration::from_secs(1);
/// Side-band ring of a CPU: room for some 2,000 mappings between two turns.
const SIDEBAND_RING: usize = 256 << 10;
/// The same where there are many CPUs.
const SMALL_SIDEBAND_RING: usize = 64 << 10;
/// Bytes for the mappings of all processes.
const PROCESS_BUDGET: usize = 8 << 20;
/// Bytes for modules' unwind information in user space.
const CFI_BUDGET: usize = 4 << 20;
/// Bytes for stacks and counts of one window.
const WINDOW_BUDGET: usize = 16 << 20;

/// A session in which samples are being taken.
pub struct Session {
    programs: Programs,
    selected: SelectedPids,
    /// Whether the CPU profiler runs; else it has no CPUs.
    samples_cpus: bool,
    cpu: CpuProfiler,
    offcpu: Option<OffCpuProfiler>,
    faults: Option<FaultProfiler>,
    /// What each process had in memory at the start, where page faults are sampled.
    resident: HashMap<u32, Resident>,
    probes: ProbeProfiler,
    collector: Collector,
    readiness: Readiness,
    online: BTreeSet<u32>,
    windows: Windows,
    /// Nanoseconds below which a wait is left out.
    shortest_wait: u64,
    started: u64,
}

/// What a session has gathered when it is stopped.
pub struct Gathered {
    /// The samples.
    pub windows: Windows,
    /// Whether the CPU profiler ran.
    pub samples_cpus: bool,
    /// Nanoseconds between two samples of a CPU.
    pub period: u64,
    /// What each CPU's timer did, taken at the moment when they were stopped.
    pub ledger: BTreeMap<u32, CpuLedger>,
    /// What the scheduler's program did, where waits were timed.
    pub waits: Option<SwitchLedger>,
    /// What the page faults' events did, where they were sampled.
    pub faults: Option<FaultBooks>,
    /// What was read, and from whom.
    pub collector: Collector,
    /// When the session began, in `CLOCK_MONOTONIC` nanoseconds.
    pub started: u64,
}

/// What there is to say of page faults besides the samples.
pub struct FaultBooks {
    /// Which were sampled.
    pub sampling: FaultSampling,
    /// What each CPU's events did.
    pub ledger: BTreeMap<u32, FaultLedger>,
    /// What processes had in memory at the start, and what those have that were sampled and are still there.
    pub resident: [HashMap<u32, Resident>; 2],
}

impl Session {
    /// Starts profiling. Samples flow when this returns; also those of tasks that come by one of `probes`. Must be called inside a
    /// tokio runtime.
    pub fn start(
        args: &ProfileArgs,
        selection: &Selection,
        probes: &[ProbePoint],
        modules: Arc<ModuleTable>,
        resolver: Arc<Resolver>,
        metrics: &SelfMetrics,
    ) -> Result<Self, RunError> {
        let started = monotonic_now();
        let online = cpus::online().map_err(RunError::failed)?;
        let possible_cpus = cpus::possible_count().map_err(RunError::failed)?;
        let ring_bytes = args.ring_size.unwrap_or_else(|| default_ring_size(online.len()));
        let arena_blocks = (args.unwind_table_memory / (u64::from(BLOCK_WORDS) * 4)) as u32;
        let slices_per_second = args.slow_unwinds;
        let variant = if args.legacy_programs { Variant::Legacy } else { Variant::of_kernel() };
        let wants = |profiler| args.wants(profiler);
        // Who did not choose has what this kernel and these privileges allow.
        let is_chosen = !args.profilers.is_empty();
        let sizes = Sizes {
            ring_bytes,
            probes: !probes.is_empty(),
            switches: (wants(ProfilerName::Offcpu) || wants(ProfilerName::Mutex))
                .then(|| offcpu::sizes(args.offcpu_memory, args.offcpu_budget / 100.0, args.shortest_wait())),
            faults: wants(ProfilerName::Memory).then(|| FaultSampling::around(args.pagefault_period)),
            possible_cpus,
            variant,
            slices_per_second,
            arena_blocks,
        };
        let mut programs = Programs::create(sizes, selection).map_err(RunError::failed)?;
        let mut rings = vec![programs.take_timer_ring().map_err(RunError::failed)?];
        if !probes.is_empty() {
            rings.push(programs.take_task_ring().map_err(RunError::failed)?);
        }
        if sizes.switches.is_some() {
            rings.push(programs.take_scheduler_ring().map_err(RunError::failed)?);
        }
        // The side-band comes first: nothing that happens to a process after the scan below may be missed.
        let sideband = Sideband::open(&online, sideband_ring(online.len())).map_err(RunError::failed)?;
        let sampled = if wants(ProfilerName::Cpu) { online.clone() } else { BTreeSet::new() };
        let cpu = CpuProfiler::start(&mut programs, &sampled, args.frequency).map_err(RunError::failed)?;
        if wants(ProfilerName::Cpu) {
            tracing::info!("registered profiler: cpu");
        }
        let faults = sizes.faults.map(|sampling| FaultProfiler::start(&mut programs, &online, sampling));
        let faults = unless_refused("memory", faults, is_chosen)?;
        if faults.is_some() {
            tracing::info!("registered profiler: memory");
        }
        let probes = ProbeProfiler::start(&mut programs, probes).map_err(RunError::failed)?;
        let tables = programs.take_unwind_tables().map_err(RunError::failed)?;
        let uses = Arc::new(programs.take_slot_uses().map_err(RunError::failed)?);
        let rules = RuleTable::new(MAX_RULES as usize);
        let arena = Arena::new(tables, arena_blocks, Box::new(uses), rules);
        let debug_files = resolver.debug_files().clone();
        let unwinder =
            Unwinder::start(arena, modules.clone(), debug_files, CFI_BUDGET).map_err(RunError::failed)?;
        let mut processes = ProcessTable::new(modules, PROCESS_BUDGET, metrics);
        let mut resident = HashMap::new();
        let read_resident = |pid| {
            if faults.is_some() {
                resident.extend(Resident::of(pid).map(|had| (pid, had)));
            }
        };
        processes.scan_and(monotonic_now(), read_resident).map_err(RunError::failed)?;
        let sources = Sources { rings, sideband, processes, unwinder, resolver };
        let mut collector = Collector::new(sources, args.per_thread);
        if faults.is_some() {
            collector.look_at_pages();
        }
        let readiness = Readiness::new().map_err(RunError::failed)?;
        let shortest_wait = args.shortest_wait();
        let windows = Windows::new(WINDOW_BUDGET, shortest_wait);
        let selected = SelectedPids::of(selection);
        let samples_cpus = wants(ProfilerName::Cpu);
        let online = sampled_cpus(samples_cpus.then_some(&cpu), faults.as_ref()).unwrap_or(online);
        let locks = wants(ProfilerName::Mutex);
        let offcpu = sizes.switches.map(|_| OffCpuProfiler::start(&mut programs, locks));
        let offcpu = unless_refused("offcpu and mutex", offcpu, is_chosen)?;
        if let Some(offcpu) = &offcpu {
            collector.read_stacks_of(offcpu.tasks());
        }
        for (profiler, name) in [(ProfilerName::Offcpu, "offcpu"), (ProfilerName::Mutex, "mutex")] {
            if wants(profiler) && offcpu.is_some() {
                tracing::info!("registered profiler: {name}");
            }
        }
        let session = Self {
            programs,
            selected,
            samples_cpus,
            cpu,
            offcpu,
            faults,
            resident,
            probes,
            collector,
            readiness,
            online,
            windows,
            shortest_wait,
            started,
        };
        session.watch_rings()?;
        Ok(session)
    }

    /// Collects samples; never returns unless something breaks. Dropping the future between two turns is fine.
    pub async fn collect(&mut self, mut progress: impl FnMut(u64)) -> Result<(), RunError> {
        let mut turns = tokio::time::interval(TURN);
        let mut cpu_checks = tokio::time::interval(CPU_CHECK);
        loop {
            tokio::select! {
                _ = turns.tick() => {}
                ready = self.readiness.ready() => ready.map_err(RunError::failed)?,
                _ = cpu_checks.tick() => self.follow_cpus()?,
            }
            self.collector.turn(&mut self.windows);
            progress(self.windows.samples());
        }
    }

    /// Ends the windows and begins others.
    pub fn end_windows(&mut self) -> Windows {
        std::mem::replace(&mut self.windows, Windows::new(WINDOW_BUDGET, self.shortest_wait))
    }

    /// How full every table is that grows with what happens on the machine.
    pub fn table_uses(&self) -> Vec<TableUse> {
        let mut all = self.collector.table_uses();
        all.extend(self.windows.table_uses());
        all
    }

    /// What was read, and from whom.
    pub fn collector(&self) -> &Collector {
        &self.collector
    }

    /// Stops the timers and reads what is left.
    pub fn stop(mut self) -> Result<Gathered, RunError> {
        self.cpu.stop().map_err(RunError::failed)?;
        // At once: idle time goes on, and finishing walks takes a while.
        let ledger = self.cpu.ledger().map_err(RunError::failed)?;
        let faults = self.faults.as_mut().map(|faults| Ok((faults.sampling(), faults.stop()?))).transpose();
        let faults = faults.map_err(|error: FaultProfilerError| RunError::failed(error))?;
        self.probes.stop();
        let stopped = monotonic_now();
        let selected = &self.selected;
        let waits = self.offcpu.take().map(|offcpu| offcpu.stop(selected)).transpose();
        let waits = waits.map_err(RunError::failed)?;
        self.collector.turn(&mut self.windows);
        // As soon as it is known who was sampled: they go on.
        let sampled = self.windows.faults.pids().into_iter();
        let has: HashMap<_, _> = sampled.filter_map(|pid| Some((pid, Resident::of(pid)?))).collect();
        let resident = [std::mem::take(&mut self.resident), has];
        let faults = faults.map(|(sampling, ledger)| FaultBooks { sampling, ledger, resident });
        self.collector.settle(&mut self.windows);
        if let Some(waits) = &waits {
            self.collector.end_waits(&waits.tasks, stopped, &mut self.windows);
            let asleep = (self.started, stopped);
            self.collector.add_sleepers(&waits.sleepers, asleep, &mut self.windows);
        }
        let Self { cpu, collector, windows, started, samples_cpus, .. } = self;
        Ok(Gathered {
            windows,
            samples_cpus,
            period: cpu.period(),
            ledger,
            waits,
            faults,
            collector,
            started,
        })
    }

    fn watch_rings(&self) -> Result<(), RunError> {
        self.collector
            .descriptors()
            .try_for_each(|descriptor| self.readiness.watch(descriptor))
            .map_err(RunError::failed)
    }

    /// CPUs come and go (hot-plug, a VM that grows): sample on those that are there.
    fn follow_cpus(&mut self) -> Result<(), RunError> {
        let online = cpus::online().map_err(RunError::failed)?;
        // One that left and returned between two looks has lost its events like one that is away.
        let stopped = self.cpu.stopped_cpus().map_err(RunError::failed)?;
        let faults_stopped = self.faults.as_mut().map_or(Ok(BTreeSet::new()), FaultProfiler::stopped_cpus);
        let stopped = &stopped | &faults_stopped.map_err(RunError::failed)?;
        let steady: BTreeSet<u32> = self.online.intersection(&online).copied().collect();
        let steady = &steady - &stopped;
        if steady == online && steady == self.online {
            return Ok(());
        }
        tracing::info!(?online, restarted = ?&stopped & &online, "the set of online CPUs changed");
        self.collector.turn(&mut self.windows);
        // Also those that come: one may have a side-band already, if it left before its timer was opened.
        for cpu in (&self.online | &online).difference(&steady) {
            self.collector.sideband_mut().remove_cpu(*cpu);
        }
        self.sample_on(&steady)?;
        for cpu in online.difference(&steady) {
            self.collector.sideband_mut().add_cpu(*cpu).map_err(RunError::failed)?;
        }
        self.sample_on(&online)?;
        // One that left meanwhile is tried again when the list has it again.
        let sampled = sampled_cpus(self.samples_cpus.then_some(&self.cpu), self.faults.as_ref());
        self.online = sampled.unwrap_or(online);
        self.watch_rings()
    }

    fn sample_on(&mut self, cpus: &BTreeSet<u32>) -> Result<(), RunError> {
        if let Some(faults) = &mut self.faults {
            faults.follow_cpus(&mut self.programs, cpus).map_err(RunError::failed)?;
        }
        if !self.samples_cpus {
            return Ok(());
        }
        self.cpu.follow_cpus(&mut self.programs, cpus).map_err(RunError::failed)
    }
}

/// What was started of profiler `name`. That it cannot run here ends the run only where it was chosen.
fn unless_refused<T, E>(
    name: &str,
    attempt: Option<Result<T, E>>,
    is_chosen: bool,
) -> Result<Option<T>, RunError>
where
    E: std::error::Error + Send + Sync + 'static,
{
    match attempt.transpose() {
        Ok(started) => Ok(started),
        Err(error) if is_chosen => Err(RunError::failed(error)),
        Err(error) => {
            tracing::warn!("no profile of {name}: {error}");
            Ok(None)
        }
    }
}

/// The CPUs on which everything runs that has events on CPUs; `None` where nothing has.
fn sampled_cpus(cpu: Option<&CpuProfiler>, faults: Option<&FaultProfiler>) -> Option<BTreeSet<u32>> {
    match (cpu.map(CpuProfiler::cpus), faults.map(FaultProfiler::cpus)) {
        (Some(cpu), Some(faults)) => Some(&cpu & &faults),
        (cpu, faults) => cpu.or(faults),
    }
}

/// Room for the samples of a second at 99 Hz with deep stacks, and at least 4 MiB: a second of samples that carry a slice of
/// the stack each, on two CPUs. When the tables are cold most do, and on an overloaded machine the reader may wait that long for a CPU.
fn default_ring_size(cpus: usize) -> u32 {
    const PER_CPU: usize = 64 << 10;
    (cpus * PER_CPU).next_power_of_two().clamp(4 << 20, 64 << 20) as u32
}

fn sideband_ring(cpus: usize) -> usize {
    if cpus <= 32 { SIDEBAND_RING } else { SMALL_SIDEBAND_RING }
}
