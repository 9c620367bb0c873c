//! An eBPF array map as plain shared memory.
//!
//! Programs and agent read and write it at the same time, word by word. Changing a map by system call instead would disable BPF
//! programs on that CPU for its duration.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicU32, AtomicU64};

use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};

/// An array map with `BPF_F_MMAPABLE`, mapped for reading and writing.
pub struct SharedArray {
    map: MmapRaw,
    /// Keeps the map's descriptor open; `None` for memory that no program shares.
    _data: Option<MapData>,
}

impl SharedArray {
    /// Maps all elements of `data`. `value_bytes` is the size that this agent expects of one.
    pub fn new(data: MapData, value_bytes: usize) -> io::Result<Self> {
        let info = data.info().map_err(io::Error::other)?;
        if info.value_size() as usize != value_bytes {
            return Err(io::Error::other("the elements' size is not the one that this agent knows"));
        }
        // Array elements are rounded up to 8 bytes (`array_map_alloc` in kernel/bpf/arraymap.c).
        let bytes = value_bytes.next_multiple_of(8) * info.max_entries() as usize;
        let map = MmapOptions::new().len(bytes).map_raw(data.fd().as_fd().as_raw_fd())?;
        Ok(Self { map, _data: Some(data) })
    }

    /// Memory of `bytes` that no program shares: for tests of what is kept in such arrays.
    #[cfg(test)]
    pub(crate) fn unshared(bytes: usize) -> io::Result<Self> {
        Ok(Self { map: memmap2::MmapMut::map_anon(bytes)?.into(), _data: None })
    }

    /// Length in bytes.
    pub fn bytes(&self) -> usize {
        self.map.len()
    }

    /// The 32-bit word at `index`.
    ///
    /// # Panics
    /// When `index` lies outside.
    #[expect(clippy::cast_ptr_alignment, reason = "mmap returns whole pages")]
    pub fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.map.len() / 4, "word {index} of {}", self.map.len() / 4);
        // SAFETY: checked above; the mapping is page-aligned, lives as long as `self`, and both sides access it atomically.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().cast::<u32>().add(index)) }
    }

    /// The 64-bit word at `index`.
    ///
    /// # Panics
    /// When `index` lies outside.
    #[expect(clippy::cast_ptr_alignment, reason = "mmap returns whole pages")]
    pub fn double_word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.map.len() / 8, "double word {index} of {}", self.map.len() / 8);
        // SAFETY: as in `word`.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().cast::<u64>().add(index)) }
    }
}
