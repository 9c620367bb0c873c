//! Counters that eBPF programs keep per CPU, mmapped.
//!
//! Reading a map by system call disables BPF programs on that CPU for its duration
//! (`bpf_disable_instrumentation`), and a skipped sample would be our own doing. An mmapped array is plain memory.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use agent_ebpf::CpuCounters;
use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};

/// An array map of [`CpuCounters`], one element per possible CPU.
pub struct CounterMap {
    map: MmapRaw,
    cpus: u32,
    _data: MapData,
}

impl CounterMap {
    /// Maps `data`, an array map with `BPF_F_MMAPABLE` whose values are [`CpuCounters`].
    pub fn new(data: MapData) -> io::Result<Self> {
        let info = data.info().map_err(io::Error::other)?;
        if info.value_size() as usize != size_of::<CpuCounters>() {
            return Err(io::Error::other("the counters' size is not the one that this agent knows"));
        }
        let cpus = info.max_entries();
        let length = cpus as usize * size_of::<CpuCounters>();
        let map = MmapOptions::new().len(length).map_raw_read_only(data.fd().as_fd().as_raw_fd())?;
        Ok(Self { map, cpus, _data: data })
    }

    /// How many CPUs the map knows: one more than the highest possible number.
    pub fn cpus(&self) -> u32 {
        self.cpus
    }

    /// What the program counted on `cpu`; zeros for a CPU that the map does not know. The fields are read
    /// one by one while the program may run: they are exact once its event is disabled.
    #[expect(clippy::cast_ptr_alignment, reason = "mmap returns whole pages")]
    pub fn on_cpu(&self, cpu: u32) -> CpuCounters {
        if cpu >= self.cpus {
            return CpuCounters::default();
        }
        // SAFETY: the element lies inside the mapping, is aligned (the map is page-aligned, its size a multiple of the
        // alignment), and every bit pattern is valid; volatile because the kernel's side changes it.
        unsafe { self.map.as_ptr().cast::<CpuCounters>().add(cpu as usize).read_volatile() }
    }
}
