//! The embedded eBPF object: sizing its maps, filling its constants, loading its programs.

mod error;
mod faults;
mod loadable;
mod selection;
mod switches;

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Instant;

use agent_ebpf::rule::Rule;
use agent_ebpf::tables::{BLOCK_WORDS, MAX_RULES, PAGE_SLOTS, PROCESS_SLOTS, Slot};
use agent_ebpf::{CpuCounters, SlotUse, SwitchCounters, UprobeOffsets, slot};
use aya::maps::{Map, MapData, RingBuf, Stack};
use aya::programs::{PerfEvent, Program, ProgramError, UProbe};
use aya::{Ebpf, EbpfLoader};

pub use self::error::ProgramsError;
use self::faults::FaultConstants;
pub use self::faults::FaultSampling;
use self::loadable::Loadable;
pub use self::selection::Selection;
pub use self::switches::{AttachedSwitches, SwitchSizes, TaskTable};
use self::switches::{Order, SwitchConstants};
use crate::kernel::btf::Btf;
use crate::kernel::counters::{CounterMap, Counters};
use crate::kernel::release::KernelRelease;
use crate::kernel::sample_ring::SampleRing;
use crate::kernel::shared_array::SharedArray;
use crate::kernel::unwind_tables::{SlotTable, UnwindTables};

/// Where kernels built with `CONFIG_DEBUG_INFO_BTF` describe their types.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The object that `cargo xtask build-ebpf` made (build.rs chooses which).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agent-ebpf.o"));

/// How large the kernel's side is to be.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of the ring that timer programs write to, and of that of programs in tasks' own contexts; powers of two of pages.
    pub ring_bytes: u32,
    /// Whether there will be programs in tasks' own contexts (probes).
    pub probes: bool,
    /// Where switches of tasks are timed: what that may take.
    pub switches: Option<SwitchSizes>,
    /// Where page faults are sampled: how many of them.
    pub faults: Option<FaultSampling>,
    /// One more than the highest possible CPU number.
    pub possible_cpus: u32,
    /// Which programs are used.
    pub variant: Variant,
    /// Slices of stack that a CPU may send in a second.
    pub slices_per_second: u32,
    /// Blocks of the unwinder's arena, [`BLOCK_WORDS`] words each.
    pub arena_blocks: u32,
}

impl Sizes {
    /// The scratch records of programs in tasks' own contexts; their end is how many records there are in all.
    fn task_slots(&self) -> Range<u32> {
        let first = slot::first_of_tasks(self.possible_cpus);
        let count = if self.probes { slot::of_tasks(self.possible_cpus) } else { 0 };
        first..first + count
    }
}

/// The least that a ring can have: a page.
const PAGE: u32 = 4096;

/// The loaded object. Its maps and programs live as long as this.
pub struct Programs {
    ebpf: Ebpf,
    variant: Variant,
    switches: Option<Order>,
    kernel_locks: bool,
}

/// Which programs are used: helpers that a kernel does not know make it refuse a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// For kernels from 5.17 on: `bpf_loop`, `bpf_task_pt_regs`.
    Modern,
    /// For kernels from 5.10 on.
    Legacy,
}

impl Variant {
    /// What the running kernel takes. One whose version cannot be told is taken for a new one.
    pub fn of_kernel() -> Self {
        const MODERN: KernelRelease = KernelRelease { major: 5, minor: 17 };
        if KernelRelease::running().is_some_and(|running| running < MODERN) {
            Self::Legacy
        } else {
            Self::Modern
        }
    }
}

impl Programs {
    /// Creates the maps and loads nothing yet.
    pub fn create(sizes: Sizes, selection: &Selection) -> Result<Self, ProgramsError> {
        selection.check()?;
        raise_locked_memory_limit();
        let btf = Btf::of_kernel(Path::new(KERNEL_BTF))?;
        let task_member = |member| btf.member_offset("task_struct", member).unwrap_or(0);
        let (task_mm, task_stack) = (task_member("mm"), task_member("stack"));
        let slots = sizes.task_slots();
        let switches = SwitchConstants::of_kernel(&btf);
        let uprobes = uprobe_offsets(&btf);
        let faults = FaultConstants::of_kernel(&btf, sizes.faults);
        let (slices, wakeup_bytes) = (u64::from(sizes.slices_per_second), u64::from(sizes.ring_bytes / 2));
        let (by_pid, cgroups) = (u32::from(!selection.pids.is_empty()), selection.cgroups.len() as u32);
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries("ARENA", sizes.arena_blocks)
            .override_global("SLICES_PER_SECOND", &slices, true)
            .override_global("UPROBE_OFFSETS", &uprobes, true)
            .override_global("TASK_MM_OFFSET", &task_mm, true)
            .override_global("TASK_STACK_OFFSET", &task_stack, true)
            .map_max_entries("TIMER_RING", sizes.ring_bytes)
            .map_max_entries("TASK_RING", if sizes.probes { sizes.ring_bytes } else { PAGE })
            .map_max_entries("SCRATCH", slots.end)
            .map_max_entries("SLOT_USES", slots.end)
            .map_max_entries("FREE_SLOTS", slots.len().max(1) as u32)
            .map_max_entries("CPU_COUNTERS", sizes.possible_cpus)
            .map_max_entries("SWITCH_COUNTERS", sizes.possible_cpus)
            .map_max_entries("SCHEDULER_RING", sizes.switches.map_or(PAGE, |_| sizes.ring_bytes))
            .override_global("POSSIBLE_CPUS", &sizes.possible_cpus, true)
            .override_global("RING_WAKEUP_BYTES", &wakeup_bytes, true)
            .override_global("SELECT_BY_PID", &by_pid, true)
            .override_global("SELECTED_CGROUP_COUNT", &cgroups, true);
        switches.pass_on(sizes.switches.as_ref(), &mut loader);
        faults.pass_on(sizes.possible_cpus, &mut loader);
        let mut ebpf = loader.load(OBJECT).map_err(Box::new)?;
        selection.apply(&mut ebpf)?;
        free_slots(&mut ebpf, slots)?;
        let (order, kernel_locks) = (switches.order(), switches.has_locks());
        Ok(Self { ebpf, variant: sizes.variant, switches: order, kernel_locks })
    }

    /// Loads the CPU profiler's program, to be attached to perf events.
    pub fn load_cpu_sampler(&mut self) -> Result<BorrowedFd<'_>, ProgramsError> {
        self.load::<PerfEvent>(["cpu_sample", "cpu_sample_legacy"])
    }

    /// Loads the program that samples whoever comes by a probed instruction, to be attached to uprobes' events. There have to be
    /// [`Sizes::probes`].
    pub fn load_probe_sampler(&mut self) -> Result<BorrowedFd<'_>, ProgramsError> {
        self.load::<UProbe>(["probe_sample", "probe_sample_legacy"])
    }

    /// Loads a program, if it is not loaded yet: the first of `names` on modern kernels.
    fn load<'a, P: Loadable + 'a>(
        &'a mut self,
        [modern, legacy]: [&'static str; 2],
    ) -> Result<BorrowedFd<'a>, ProgramsError>
    where
        &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let name = match self.variant {
            Variant::Modern => modern,
            Variant::Legacy => legacy,
        };
        let failed = |source| ProgramsError::Program { name, source: Box::new(source) };
        let program = self.ebpf.program_mut(name).ok_or(ProgramsError::Missing(name))?;
        let program: &mut P = program.try_into().map_err(failed)?;
        if program.descriptor().is_err() {
            let before = Instant::now();
            program.load().map_err(failed)?;
            // From 5.16 on the kernel tells how many instructions the verifier looked at; its limit is a million.
            let verified = program.info().ok().and_then(|info| info.verified_instruction_count());
            let milliseconds = before.elapsed().as_millis();
            tracing::debug!(name, milliseconds, verified, "the kernel took the eBPF program");
        }
        program.descriptor().map_err(failed)
    }

    /// The ring that timer programs write to. Once.
    pub fn take_timer_ring(&mut self) -> Result<SampleRing, ProgramsError> {
        self.take_ring("TIMER_RING")
    }

    /// The ring that programs in tasks' own contexts write to. Once.
    pub fn take_task_ring(&mut self) -> Result<SampleRing, ProgramsError> {
        self.take_ring("TASK_RING")
    }

    fn take_ring(&mut self, name: &'static str) -> Result<SampleRing, ProgramsError> {
        let map = self.ebpf.take_map(name).ok_or(ProgramsError::Missing(name))?;
        let ring = RingBuf::try_from(map).map_err(|source| ProgramsError::Map { name, source })?;
        Ok(SampleRing::new(ring))
    }

    /// The CPU profiler's counters. Once.
    pub fn take_cpu_counters(&mut self) -> Result<CounterMap<CpuCounters>, ProgramsError> {
        self.take_counters("CPU_COUNTERS")
    }

    /// What the program that times switches counts. Once.
    pub fn take_switch_counters(&mut self) -> Result<CounterMap<SwitchCounters>, ProgramsError> {
        self.take_counters("SWITCH_COUNTERS")
    }

    /// The ring that programs write to while tasks are switched. Once.
    pub fn take_scheduler_ring(&mut self) -> Result<SampleRing, ProgramsError> {
        self.take_ring("SCHEDULER_RING")
    }

    /// How often each scratch record was used. Once.
    pub fn take_slot_uses(&mut self) -> Result<CounterMap<SlotUse>, ProgramsError> {
        self.take_counters("SLOT_USES")
    }

    fn take_counters<C: Counters>(&mut self, name: &'static str) -> Result<CounterMap<C>, ProgramsError> {
        CounterMap::new(self.take_array(name)?).map_err(|source| ProgramsError::Mmap { name, source })
    }

    /// The unwinder's tables. Once.
    pub fn take_unwind_tables(&mut self) -> Result<UnwindTables, ProgramsError> {
        let slots = size_of::<Slot>();
        Ok(UnwindTables {
            arena: self.take_shared("ARENA", BLOCK_WORDS as usize * size_of::<u32>())?,
            rules: self.take_shared("RULES", MAX_RULES as usize * size_of::<Rule>())?,
            pages: SlotTable::of_pages(self.take_shared("PAGE_TABLE", PAGE_SLOTS as usize * slots)?),
            processes: SlotTable::of_processes(
                self.take_shared("PROCESS_TABLE", PROCESS_SLOTS as usize * slots)?,
            ),
            epoch: self.take_shared("EPOCH", size_of::<u32>())?,
        })
    }

    fn take_shared(&mut self, name: &'static str, value_bytes: usize) -> Result<SharedArray, ProgramsError> {
        let data = self.take_array(name)?;
        SharedArray::new(data, value_bytes).map_err(|source| ProgramsError::Mmap { name, source })
    }

    fn take_array(&mut self, name: &'static str) -> Result<MapData, ProgramsError> {
        match self.ebpf.take_map(name) {
            Some(Map::Array(data)) => Ok(data),
            _ => Err(ProgramsError::Missing(name)),
        }
    }
}

/// [`UprobeOffsets`] as the program holds it; all 0 where the kernel does not have one of them.
fn uprobe_offsets(btf: &Btf) -> [u32; 9] {
    let offsets = || {
        Some([
            btf.member_offset("task_struct", "utask")?,
            btf.member_offset("uprobe_task", "return_instances")?,
            btf.member_offset("return_instance", "stack")?,
            btf.member_offset("return_instance", "orig_ret_vaddr")?,
            btf.member_offset("return_instance", "next")?,
            btf.member_offset("mm_struct", "uprobes_state")?
                + btf.member_offset("uprobes_state", "xol_area")?,
            btf.member_offset("xol_area", "vaddr")?,
            btf.member_offset("uprobe_task", "vaddr")?,
            btf.member_offset("uprobe_task", "xol_vaddr")?,
        ])
    };
    offsets().unwrap_or_default()
}

const _: () = assert!(size_of::<UprobeOffsets>() == size_of::<[u32; 9]>());

fn free_slots(ebpf: &mut Ebpf, slots: Range<u32>) -> Result<(), ProgramsError> {
    const NAME: &str = "FREE_SLOTS";
    let failed = |source| ProgramsError::Map { name: NAME, source };
    let map = ebpf.map_mut(NAME).ok_or(ProgramsError::Missing(NAME))?;
    let mut free: Stack<&mut MapData, u32> = map.try_into().map_err(failed)?;
    slots.into_iter().try_for_each(|slot| free.push(slot, 0)).map_err(failed)
}

/// Kernels before 5.11 charge maps to `RLIMIT_MEMLOCK`. Where the limit cannot be raised, creating a map fails
/// with an error of its own, so this one is not worth reporting.
fn raise_locked_memory_limit() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    if let Err(errno) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        tracing::debug!(%errno, "cannot raise RLIMIT_MEMLOCK");
    }
}
