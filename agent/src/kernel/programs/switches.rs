//! The programs that time switches of tasks and see who wakes them: their constants, loading, and what they keep.

use agent_ebpf::TaskWaits;
use aya::EbpfLoader;
use aya::maps::{HashMap, MapData};
use aya::programs::BtfTracePoint;
use aya::programs::tp_btf::BtfTracePointLink;

use super::{Programs, ProgramsError, Variant};
use crate::kernel::btf::Btf;

/// The kernel's tracepoints.
const TRACEPOINT: &str = "sched_switch";
const WAKING: &str = "sched_waking";
/// Those of locks that sleep, from 5.19 on.
const LOCKS: [&str; 2] = ["contention_begin", "contention_end"];
/// The map of tasks.
const TASKS: &str = "TASK_WAITS";

/// What the off-CPU profiler's program may take.
#[derive(Clone, Copy, Debug)]
pub struct SwitchSizes {
    /// Tasks that are known at once.
    pub tasks: u32,
    /// Nanoseconds of 2²⁷ on each CPU that may go into stacks.
    pub stack_budget: u64,
    /// Nanoseconds from which on a wait is told of by itself.
    pub long_wait: u64,
    /// Nanoseconds below which a wait is left out; 0: none is.
    pub shortest_wait: u64,
}

/// The orders in which kernels have the tracepoint's arguments; each has a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// From 6.0: the leaving task's state is behind the two tasks.
    StateLast,
    /// 5.18 and 5.19: before them.
    StateFirst,
    /// To 5.17: it is not there.
    NoState,
}

impl Order {
    /// The order in which arguments are pointers or not.
    fn of(pointers: &[bool]) -> Option<Self> {
        match pointers {
            [false, true, true, false] => Some(Self::StateLast),
            [false, false, true, true] => Some(Self::StateFirst),
            [false, true, true] => Some(Self::NoState),
            _ => None,
        }
    }
}

/// What the program has to know of the kernel's structures and of the tracepoint's arguments.
pub(super) struct SwitchConstants {
    order: Option<Order>,
    pid: u32,
    state: u32,
    iowait: (u32, u32),
    own_pid: u32,
    has_locks: bool,
}

impl SwitchConstants {
    /// Looks them up. What a kernel does not tell is 0, and [`Programs::attach_switches`] fails there.
    pub(super) fn of_kernel(btf: &Btf) -> Self {
        let member = |name| btf.member_offset("task_struct", name);
        let pointers = btf.tracepoint_pointers(TRACEPOINT).unwrap_or_default();
        let iowait = btf.flag_position("task_struct", "in_iowait").unwrap_or_default();
        Self {
            order: Order::of(&pointers),
            pid: member("pid").unwrap_or(0),
            state: member("__state").or_else(|| member("state")).unwrap_or(0),
            iowait: (iowait.0, u32::from(iowait.1)),
            own_pid: std::process::id(),
            has_locks: LOCKS.iter().all(|name| btf.tracepoint_pointers(name).is_some()),
        }
    }

    /// The order of the tracepoint's arguments, if the kernel told enough.
    pub(super) fn order(&self) -> Option<Order> {
        self.order.filter(|_| self.pid > 0 && self.state > 0)
    }

    /// Whether the kernel tells of its own locks.
    pub(super) fn has_locks(&self) -> bool {
        self.has_locks
    }

    /// Hands them to the program.
    pub(super) fn pass_on<'a>(&'a self, sizes: Option<&'a SwitchSizes>, loader: &mut EbpfLoader<'a>) {
        loader
            .override_global("TASK_PID_OFFSET", &self.pid, true)
            .override_global("TASK_STATE_OFFSET", &self.state, true)
            .override_global("TASK_IOWAIT_OFFSET", &self.iowait.0, true)
            .override_global("TASK_IOWAIT_MASK", &self.iowait.1, true)
            .override_global("OWN_PID", &self.own_pid, true);
        if let Some(sizes) = sizes {
            loader
                .override_global("STACK_BUDGET", &sizes.stack_budget, true)
                .override_global("LONG_WAIT", &sizes.long_wait, true)
                .override_global("SHORTEST_WAIT", &sizes.shortest_wait, true)
                .map_max_entries(TASKS, sizes.tasks);
        }
    }
}

/// The programs, attached; detached on drop.
pub struct AttachedSwitches {
    _links: Vec<BtfTracePointLink>,
}

/// Tasks as the program has them, by thread id.
pub struct TaskTable {
    map: HashMap<MapData, u32, [u8; size_of::<TaskWaits>()]>,
}

impl Programs {
    /// Loads the programs that time switches and look for wakers, and lets them run from now on.
    pub fn attach_switches(&mut self) -> Result<AttachedSwitches, ProgramsError> {
        let Some(order) = self.switches else {
            return Err(ProgramsError::UnknownKernel("task_struct, or the tracepoint sched_switch"));
        };
        let switch = match (order, self.variant) {
            (Order::StateFirst, _) => "offcpu_switch_5_18",
            (Order::StateLast, Variant::Modern) => "offcpu_switch",
            (Order::StateLast | Order::NoState, _) => "offcpu_switch_legacy",
        };
        let waking = match self.variant {
            Variant::Modern => "offcpu_waking",
            Variant::Legacy => "offcpu_waking_legacy",
        };
        // The other way round, waits that are timed would have wakers that nobody sees.
        let links = vec![self.attach(waking, WAKING)?, self.attach(switch, TRACEPOINT)?];
        Ok(AttachedSwitches { _links: links })
    }

    /// Loads the programs that tell waits for the kernel's own locks from others, and lets them run. `None` where the kernel has no
    /// tracepoints for that.
    pub fn attach_kernel_locks(&mut self) -> Result<Option<AttachedSwitches>, ProgramsError> {
        if !self.kernel_locks {
            return Ok(None);
        }
        let [begin, end] = LOCKS;
        // The other way round, a lock that is got meanwhile would be noted and never forgotten.
        let links = vec![self.attach("lock_acquired", end)?, self.attach("lock_contended", begin)?];
        Ok(Some(AttachedSwitches { _links: links }))
    }

    fn attach(
        &mut self,
        name: &'static str,
        tracepoint: &'static str,
    ) -> Result<BtfTracePointLink, ProgramsError> {
        let failed = |source| ProgramsError::Program { name, source: Box::new(source) };
        let btf = aya::Btf::from_sys_fs().map_err(|error| failed(error.into()))?;
        let program = self.ebpf.program_mut(name).ok_or(ProgramsError::Missing(name))?;
        let program: &mut BtfTracePoint = program.try_into().map_err(failed)?;
        if program.fd().is_err() {
            program.load(tracepoint, &btf).map_err(failed)?;
            let verified = program.info().ok().and_then(|info| info.verified_instruction_count());
            tracing::debug!(name, verified, "the kernel took the eBPF program");
        }
        let id = program.attach().map_err(failed)?;
        program.take_link(id).map_err(failed)
    }

    /// Tasks as the program has them. Once.
    pub fn take_task_table(&mut self) -> Result<TaskTable, ProgramsError> {
        let failed = |source| ProgramsError::Map { name: TASKS, source };
        let map = self.ebpf.take_map(TASKS).ok_or(ProgramsError::Missing(TASKS))?;
        Ok(TaskTable { map: map.try_into().map_err(failed)? })
    }
}

impl TaskTable {
    /// Whether thread `tid` is still in the wait that began at `began`.
    pub fn still_waits(&self, tid: u32, began: u64) -> bool {
        self.map.get(&tid, 0).is_ok_and(|bytes| task(bytes).left == began)
    }

    /// All tasks; while the program runs, some may be missing and some half changed.
    pub fn all(&self) -> Result<Vec<TaskWaits>, ProgramsError> {
        let failed = |source| ProgramsError::Map { name: TASKS, source };
        let entries = self.map.iter().map(|entry| entry.map(|(_, bytes)| task(bytes)));
        entries.collect::<Result<_, _>>().map_err(failed)
    }
}

fn task(bytes: [u8; size_of::<TaskWaits>()]) -> TaskWaits {
    // SAFETY: the array has the structure's size, and every bit pattern is valid (integers only).
    unsafe { bytes.as_ptr().cast::<TaskWaits>().read_unaligned() }
}
