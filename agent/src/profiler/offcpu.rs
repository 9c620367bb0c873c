//! Off-CPU and mutex profilers: every switch of tasks is timed in the kernel, and who ends waits is looked for.
//!
//! How many switches there were is known from outside the program: the kernel counts them itself.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use agent_ebpf::{SwitchCounters, TaskWaits};

use crate::kernel::counters::CounterMap;
use crate::kernel::cpu_time;
use crate::kernel::programs::{AttachedSwitches, Programs, ProgramsError, Selection, SwitchSizes, TaskTable};
use crate::process::scan;
use crate::process::sleeper::Sleeper;

/// Nanoseconds from which on a wait is told of by itself: one that people would look for.
pub const LONG_WAIT: u64 = 20_000_000;
/// Bytes that a task costs in the kernel: its entry, the hash table's part, and what allocators round up.
const TASK_BYTES: u64 = 272;
/// Tasks that are known at least.
const FEWEST_TASKS: u64 = 64;

/// The off-CPU profiler could not be started or read.
#[derive(Debug, thiserror::Error)]
pub enum OffCpuError {
    /// The program or one of its maps could not be used.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// The kernel's count of switches could not be read.
    #[error("cannot read /proc/stat: {0}")]
    Switches(#[source] io::Error),
    /// The processes could not be listed.
    #[error("cannot list /proc: {0}")]
    Processes(#[source] io::Error),
}

/// How large the kernel's side may be: `memory` bytes for tasks, `share` of each CPU's time for stacks. Waits shorter than
/// `shortest_wait` nanoseconds are left out.
pub fn sizes(memory: u64, share: f64, shortest_wait: u64) -> SwitchSizes {
    let tasks = (memory / TASK_BYTES).clamp(FEWEST_TASKS, 1 << 22) as u32;
    let stack_budget = (share * f64::from(1 << 27)) as u64;
    SwitchSizes { tasks, stack_budget, long_wait: LONG_WAIT, shortest_wait }
}

/// The processes whose waits are timed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectedPids {
    /// All.
    All,
    /// These.
    These(Vec<u32>),
    /// Those of cgroups, which only the kernel can tell: threads that sleep all the time are left out.
    Unknown,
}

impl SelectedPids {
    /// The processes of `selection`.
    pub fn of(selection: &Selection) -> Self {
        match selection {
            Selection { pids, cgroups } if pids.is_empty() && cgroups.is_empty() => Self::All,
            Selection { pids, cgroups } if cgroups.is_empty() => Self::These(pids.clone()),
            _ => Self::Unknown,
        }
    }
}

/// A running off-CPU profiler.
pub struct OffCpuProfiler {
    attached: [Option<AttachedSwitches>; 2],
    tasks: Arc<TaskTable>,
    counters: CounterMap<SwitchCounters>,
    /// The kernel's count when the program was attached.
    switches: u64,
}

/// What the profiler has when it is stopped.
#[derive(Clone, Debug)]
pub struct SwitchLedger {
    /// Switches by the kernel's own count.
    pub switches: u64,
    /// What the program counted on all CPUs together.
    pub counters: SwitchCounters,
    /// Tasks that are still there.
    pub tasks: Vec<TaskWaits>,
    /// Threads that were not switched at all: they were asleep when the program came, and still are.
    pub sleepers: Vec<Sleeper>,
}

impl SwitchLedger {
    /// Looks for threads that were not switched at all: of `pids`, or of all processes.
    fn find_sleepers(&mut self, pids: &[u32]) -> io::Result<()> {
        // Without room for all tasks it is not known who was switched.
        if self.counters.table_full > 0 {
            return Ok(());
        }
        let switched: HashSet<u32> = self.tasks.iter().map(|task| task.tid).collect();
        let pids = if pids.is_empty() { scan::processes()? } else { pids.to_vec() };
        let own = std::process::id();
        for pid in pids.into_iter().filter(|pid| *pid != own) {
            let threads = Sleeper::threads(pid).into_iter().filter(|tid| !switched.contains(tid));
            self.sleepers.extend(threads.filter_map(|tid| Sleeper::of(pid, tid)));
        }
        Ok(())
    }
}

impl OffCpuProfiler {
    /// Loads the programs and lets them run; with `kernel_locks` also those that tell waits for the kernel's own locks, where the
    /// kernel can.
    pub fn start(programs: &mut Programs, kernel_locks: bool) -> Result<Self, OffCpuError> {
        let (tasks, counters) = (Arc::new(programs.take_task_table()?), programs.take_switch_counters()?);
        let locks = if kernel_locks { programs.attach_kernel_locks()? } else { None };
        if kernel_locks && locks.is_none() {
            tracing::warn!(
                "this kernel (before 5.19) does not tell of its own locks: none is in the mutex profile"
            );
        }
        let attached = [Some(programs.attach_switches()?), locks];
        let switches = cpu_time::context_switches().map_err(OffCpuError::Switches)?;
        Ok(Self { attached, tasks, counters, switches })
    }

    /// The tasks that the program knows.
    pub fn tasks(&self) -> Arc<TaskTable> {
        self.tasks.clone()
    }

    /// Takes the program away, and reads what it leaves. `selection` is whom it was to time.
    pub fn stop(self, selection: &SelectedPids) -> Result<SwitchLedger, OffCpuError> {
        let Self { attached, tasks, counters, switches } = self;
        let now = cpu_time::context_switches().map_err(OffCpuError::Switches)?;
        drop(attached);
        let counters = sum(counters.all());
        // Both readings are taken while the program runs, so it may have seen a few more.
        let switches = (now - switches).max(counters.switches);
        let mut ledger = SwitchLedger { switches, counters, tasks: tasks.all()?, sleepers: Vec::new() };
        match selection {
            SelectedPids::All => ledger.find_sleepers(&[]),
            SelectedPids::These(pids) => ledger.find_sleepers(pids),
            SelectedPids::Unknown => Ok(()),
        }
        .map_err(OffCpuError::Processes)?;
        Ok(ledger)
    }
}

fn sum(all: impl Iterator<Item = SwitchCounters>) -> SwitchCounters {
    all.fold(SwitchCounters::default(), |sum, cpu| SwitchCounters {
        switches: sum.switches + cpu.switches,
        idle: sum.idle + cpu.idle,
        not_selected: sum.not_selected + cpu.not_selected,
        ended: sum.ended + cpu.ended,
        begun: sum.begun + cpu.begun,
        table_full: sum.table_full + cpu.table_full,
        stacks: sum.stacks + cpu.stacks,
        stacks_ring_full: sum.stacks_ring_full + cpu.stacks_ring_full,
        over_budget: sum.over_budget + cpu.over_budget,
        waits_ring_full: sum.waits_ring_full + cpu.waits_ring_full,
        early: sum.early + cpu.early,
        wakings: sum.wakings + cpu.wakings,
        wakers: sum.wakers + cpu.wakers,
        wakers_ring_full: sum.wakers_ring_full + cpu.wakers_ring_full,
        wakers_over_budget: sum.wakers_over_budget + cpu.wakers_over_budget,
        stack_nanoseconds: sum.stack_nanoseconds + cpu.stack_nanoseconds,
        left_out: sum.left_out + cpu.left_out,
        left_out_nanoseconds: sum.left_out_nanoseconds + cpu.left_out_nanoseconds,
        ..sum
    })
}
