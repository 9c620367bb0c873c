//! The embedded eBPF object: sizing its maps, filling its constants, loading its programs.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use agent_ebpf::rule::Rule;
use agent_ebpf::tables::{BLOCK_WORDS, MAX_RULES, PAGE_SLOTS, PROCESS_SLOTS, Slot};
use agent_ebpf::{MAX_CGROUPS, MAX_PIDS, UprobeOffsets};
use aya::maps::{CgroupArray, HashMap, Map, MapData, MapError, RingBuf};
use aya::programs::{PerfEvent, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader};

use crate::kernel::btf::{Btf, BtfError};
use crate::kernel::counters::CounterMap;
use crate::kernel::release::KernelRelease;
use crate::kernel::sample_ring::SampleRing;
use crate::kernel::shared_array::SharedArray;
use crate::kernel::unwind_tables::{SlotTable, UnwindTables};

/// Where kernels built with `CONFIG_DEBUG_INFO_BTF` describe their types.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The object that `cargo xtask build-ebpf` made (build.rs chooses which).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agent-ebpf.o"));

/// The eBPF side could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// The kernel refused a map, or the object is not what this agent expects.
    #[error("cannot load the eBPF object: {0}")]
    Object(#[from] Box<EbpfError>),
    /// The kernel refused a program.
    #[error("the kernel refused the eBPF program {name}: {source}")]
    Program {
        /// The program.
        name: &'static str,
        /// What the kernel answered, with the verifier's log where there is one.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map could not be used.
    #[error("eBPF map {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// What the kernel answered.
        #[source]
        source: MapError,
    },
    /// A map could not be mapped into memory.
    #[error("mmap of eBPF map {name}: {source}")]
    Mmap {
        /// The map.
        name: &'static str,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The object has no such part: it was built from other sources than the agent.
    #[error("the eBPF object has no {0}; rebuild it with `cargo xtask build-ebpf`")]
    Missing(&'static str),
    /// The kernel does not say how its structures look.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// More was selected than the kernel's tables hold.
    #[error("at most {limit} {what} can be selected, not {count}")]
    TooMany {
        /// `processes` or `cgroups`.
        what: &'static str,
        /// How many there may be.
        limit: u32,
        /// How many there are.
        count: usize,
    },
}

/// Which tasks to profile. Nothing selected: all.
#[derive(Debug, Default)]
pub struct Selection {
    /// Processes.
    pub pids: Vec<u32>,
    /// Open directories of cgroups (v2); tasks in and below them.
    pub cgroups: Vec<File>,
}

/// How large the kernel's side is to be.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of the ring that timer programs write to; a power of two of pages.
    pub ring_bytes: u32,
    /// One more than the highest possible CPU number.
    pub possible_cpus: u32,
    /// Which programs are used.
    pub variant: Variant,
    /// Slices of stack that a CPU may send in a second.
    pub slices_per_second: u32,
    /// Blocks of the unwinder's arena, [`BLOCK_WORDS`] words each.
    pub arena_blocks: u32,
}

/// The loaded object. Its maps and programs live as long as this.
pub struct Programs {
    ebpf: Ebpf,
    variant: Variant,
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
        check_limit("processes", selection.pids.len(), MAX_PIDS)?;
        check_limit("cgroups", selection.cgroups.len(), MAX_CGROUPS)?;
        raise_locked_memory_limit();
        let btf = Btf::of_kernel(Path::new(KERNEL_BTF))?;
        let task_member = |member| btf.member_offset("task_struct", member).unwrap_or(0);
        let (task_mm, task_stack) = (task_member("mm"), task_member("stack"));
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("ARENA", sizes.arena_blocks)
            .override_global("SLICES_PER_SECOND", &u64::from(sizes.slices_per_second), true)
            .override_global("UPROBE_OFFSETS", &uprobe_offsets(&btf), true)
            .override_global("TASK_MM_OFFSET", &task_mm, true)
            .override_global("TASK_STACK_OFFSET", &task_stack, true)
            .map_max_entries("TIMER_RING", sizes.ring_bytes)
            .map_max_entries("CPU_COUNTERS", sizes.possible_cpus)
            .override_global("RING_WAKEUP_BYTES", &u64::from(sizes.ring_bytes / 2), true)
            .override_global("SELECT_BY_PID", &u32::from(!selection.pids.is_empty()), true)
            .override_global("SELECTED_CGROUP_COUNT", &(selection.cgroups.len() as u32), true)
            .load(OBJECT)
            .map_err(Box::new)?;
        select_pids(&mut ebpf, &selection.pids)?;
        select_cgroups(&mut ebpf, &selection.cgroups)?;
        Ok(Self { ebpf, variant: sizes.variant })
    }

    /// Loads the CPU profiler's program, to be attached to perf events.
    pub fn load_cpu_sampler(&mut self) -> Result<BorrowedFd<'_>, ProgramsError> {
        let name = match self.variant {
            Variant::Modern => "cpu_sample",
            Variant::Legacy => "cpu_sample_legacy",
        };
        let failed = |source| ProgramsError::Program { name, source: Box::new(source) };
        let program = self.ebpf.program_mut(name).ok_or(ProgramsError::Missing(name))?;
        let program: &mut PerfEvent = program.try_into().map_err(failed)?;
        if program.fd().is_err() {
            let before = Instant::now();
            program.load().map_err(failed)?;
            // From 5.16 on the kernel tells how many instructions the verifier looked at; its limit is a million.
            let verified = program.info().ok().and_then(|info| info.verified_instruction_count());
            let milliseconds = before.elapsed().as_millis();
            tracing::debug!(name, milliseconds, verified, "the kernel took the eBPF program");
        }
        Ok(program.fd().map_err(failed)?.as_fd())
    }

    /// The ring that timer programs write to. Once.
    pub fn take_timer_ring(&mut self) -> Result<SampleRing, ProgramsError> {
        const NAME: &str = "TIMER_RING";
        let map = self.ebpf.take_map(NAME).ok_or(ProgramsError::Missing(NAME))?;
        let ring = RingBuf::try_from(map).map_err(|source| ProgramsError::Map { name: NAME, source })?;
        Ok(SampleRing::new(ring))
    }

    /// The CPU profiler's counters. Once.
    pub fn take_cpu_counters(&mut self) -> Result<CounterMap, ProgramsError> {
        const NAME: &str = "CPU_COUNTERS";
        CounterMap::new(self.take_array(NAME)?).map_err(|source| ProgramsError::Mmap { name: NAME, source })
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

fn check_limit(what: &'static str, count: usize, limit: u32) -> Result<(), ProgramsError> {
    if count > limit as usize { Err(ProgramsError::TooMany { what, limit, count }) } else { Ok(()) }
}

fn select_pids(ebpf: &mut Ebpf, pids: &[u32]) -> Result<(), ProgramsError> {
    const NAME: &str = "SELECTED_PIDS";
    let failed = |source| ProgramsError::Map { name: NAME, source };
    let map = ebpf.map_mut(NAME).ok_or(ProgramsError::Missing(NAME))?;
    let mut selected: HashMap<&mut MapData, u32, u8> = map.try_into().map_err(failed)?;
    pids.iter().try_for_each(|pid| selected.insert(pid, 1, 0)).map_err(failed)
}

fn select_cgroups(ebpf: &mut Ebpf, cgroups: &[File]) -> Result<(), ProgramsError> {
    const NAME: &str = "SELECTED_CGROUPS";
    let failed = |source| ProgramsError::Map { name: NAME, source };
    let map = ebpf.map_mut(NAME).ok_or(ProgramsError::Missing(NAME))?;
    let mut selected: CgroupArray<&mut MapData> = map.try_into().map_err(failed)?;
    (0..)
        .zip(cgroups)
        .try_for_each(|(slot, directory)| selected.set(slot, directory.as_raw_fd(), 0))
        .map_err(failed)
}

/// Kernels before 5.11 charge maps to `RLIMIT_MEMLOCK`. Where the limit cannot be raised, creating a map fails
/// with an error of its own, so this one is not worth reporting.
fn raise_locked_memory_limit() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    if let Err(errno) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        tracing::debug!(%errno, "cannot raise RLIMIT_MEMLOCK");
    }
}
