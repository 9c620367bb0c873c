//! The ring of a perf event: a header page and a power of two of data pages, shared with the kernel.
//!
//! Protocol: `struct perf_event_mmap_page` in `include/uapi/linux/perf_event.h`. The kernel moves
//! `data_head`, we move `data_tail`; both only grow.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use perf_event_open_sys::bindings::perf_event_mmap_page;

use crate::kernel::perf_event::PerfEvent;

/// Bytes of a record's header: type, misc, size.
const HEADER: usize = 8;

/// An event together with the ring that the kernel writes its records to.
pub(super) struct EventRing {
    event: PerfEvent,
    map: MmapRaw,
    page: usize,
    data: usize,
    record: Vec<u8>,
}

impl EventRing {
    /// Maps a ring of `data_bytes`, a power of two of pages, for `event`.
    pub(super) fn new(event: PerfEvent, data_bytes: usize) -> io::Result<Self> {
        let page = page_size();
        if !data_bytes.is_power_of_two() || !data_bytes.is_multiple_of(page) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a ring of {data_bytes} bytes is not a power of two of {page}-byte pages"),
            ));
        }
        let map = MmapOptions::new().len(page + data_bytes).map_raw(event.as_fd().as_raw_fd())?;
        Ok(Self { event, map, page, data: data_bytes, record: Vec::new() })
    }

    /// The event that the ring belongs to.
    pub(super) fn event(&self) -> &PerfEvent {
        &self.event
    }

    /// Hands every record that is in the ring now to `take`, oldest first, and makes room for new ones.
    pub(super) fn drain(&mut self, mut take: impl FnMut(&[u8])) {
        let head = self.head().load(Ordering::Acquire);
        let mut tail = self.tail().load(Ordering::Relaxed);
        while head.wrapping_sub(tail) >= HEADER as u64 {
            let mut header = [0; HEADER];
            self.copy(tail, &mut header);
            let size = usize::from(u16::from_ne_bytes([header[6], header[7]]));
            if size < HEADER || size as u64 > head.wrapping_sub(tail) {
                // Only a broken kernel does this; what is left cannot be told apart any more.
                tail = head;
                break;
            }
            let mut record = std::mem::take(&mut self.record);
            record.resize(size, 0);
            self.copy(tail, &mut record);
            take(&record);
            self.record = record;
            tail = tail.wrapping_add(size as u64);
            self.tail().store(tail, Ordering::Release);
        }
        self.tail().store(tail, Ordering::Release);
    }

    /// Copies ring bytes from position `from` on, which may wrap around the ring's end.
    fn copy(&self, from: u64, to: &mut [u8]) {
        let start = (from & (self.data as u64 - 1)) as usize;
        let first = to.len().min(self.data - start);
        let (head, rest) = to.split_at_mut(first);
        // SAFETY: `start + first <= data` and `rest.len() <= data` (records are at most 64 KiB, rings are larger
        // or the record would not be there), so both lie in the mapping. The kernel does not write
        // between tail and head.
        unsafe {
            let data = self.map.as_ptr().add(self.page);
            std::ptr::copy_nonoverlapping(data.add(start), head.as_mut_ptr(), head.len());
            std::ptr::copy_nonoverlapping(data, rest.as_mut_ptr(), rest.len());
        }
    }

    fn head(&self) -> &AtomicU64 {
        self.position(std::mem::offset_of!(perf_event_mmap_page, data_head))
    }

    fn tail(&self) -> &AtomicU64 {
        self.position(std::mem::offset_of!(perf_event_mmap_page, data_tail))
    }

    fn position(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the header page is mapped as long as `self.map`, the field is an aligned u64, and kernel and
        // agent access it as one.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(offset).cast()) }
    }
}

fn page_size() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096) as usize
}
