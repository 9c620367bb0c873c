//! Counters that eBPF programs keep, mmapped.
//!
//! Reading a map by system call disables BPF programs on that CPU for its duration
//! (`bpf_disable_instrumentation`), and a skipped sample would be our own doing. An mmapped array is plain memory.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _};

use agent_ebpf::{CpuCounters, FaultCounters, SlotUse, SwitchCounters};
use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};

/// What an element of a [`CounterMap`] can be.
///
/// # Safety
/// Every bit pattern is valid, and the size is a multiple of the alignment.
pub unsafe trait Counters: Copy + Default {}

// SAFETY: integers only, and `repr(C, align(64))`.
unsafe impl Counters for CpuCounters {}
// SAFETY: as above.
unsafe impl Counters for SlotUse {}
// SAFETY: as above.
unsafe impl Counters for SwitchCounters {}
// SAFETY: as above.
unsafe impl Counters for FaultCounters {}

/// An array map of counters: [`CpuCounters`], one element per possible CPU, or [`SlotUse`], one per scratch record.
pub struct CounterMap<C> {
    map: MmapRaw,
    elements: u32,
    _data: MapData,
    counters: PhantomData<C>,
}

impl<C: Counters> CounterMap<C> {
    /// Maps `data`, an array map with `BPF_F_MMAPABLE` whose values are `C`.
    pub fn new(data: MapData) -> io::Result<Self> {
        let info = data.info().map_err(io::Error::other)?;
        if info.value_size() as usize != size_of::<C>() {
            return Err(io::Error::other("the counters' size is not the one that this agent knows"));
        }
        let elements = info.max_entries();
        let length = elements as usize * size_of::<C>();
        let map = MmapOptions::new().len(length).map_raw_read_only(data.fd().as_fd().as_raw_fd())?;
        Ok(Self { map, elements, _data: data, counters: PhantomData })
    }

    /// What the programs counted in each element, in order.
    pub fn all(&self) -> impl Iterator<Item = C> {
        (0..self.elements).map(|index| self.at(index))
    }

    /// What the programs counted at `index`; zeros for one that the map does not have. The fields are read
    /// one by one while a program may run: they are exact once its event is disabled.
    pub fn at(&self, index: u32) -> C {
        if index >= self.elements {
            return C::default();
        }
        // SAFETY: the element lies inside the mapping, is aligned (the map is page-aligned, its size a multiple of the
        // alignment), and every bit pattern is valid; volatile because the kernel's side changes it.
        unsafe { self.map.as_ptr().cast::<C>().add(index as usize).read_volatile() }
    }
}
