//! Pages of processes: what kind of memory they are, and how many the kernel mapped together.
//!
//! `/proc/PID/pagemap` and `/proc/kpageflags` (`Documentation/admin-guide/mm/pagemap.rst`). The first shows page frames to those who have
//! `CAP_SYS_ADMIN`; for others there is no more than whether a page is there.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::kernel::release::KernelRelease;

/// Bytes of a page, and of an entry of both files.
const PAGE: u64 = 4096;
const ENTRY: u64 = 8;
/// Bits of an entry of `pagemap`.
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;
/// Bits of an entry of `kpageflags` (`include/uapi/linux/kernel-page-flags.h`).
const ANON: u64 = 1 << 12;
const SWAP_BACKED: u64 = 1 << 14;
const COMPOUND_HEAD: u64 = 1 << 15;
const COMPOUND_TAIL: u64 = 1 << 16;
const HUGETLB: u64 = 1 << 17;
const ZERO_PAGE: u64 = 1 << 24;
/// Pages of a huge page.
const HUGE: usize = 512;
/// Pages that the kernel maps around a read of a file, unless it was told otherwise (`fault_around_bytes` in `mm/memory.c`).
const AROUND: usize = 16;
/// From which kernel on a file's folio is mapped as a whole where it can be (`filemap_map_pages` in `mm/filemap.c`).
const WHOLE_FOLIOS: KernelRelease = KernelRelease { major: 6, minor: 18 };
/// Processes whose file is kept open.
const MOST_OPEN: usize = 64;

/// What kind of memory a page is: which of its counters the kernel has it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// A process's own.
    Anon,
    /// A file's.
    File,
    /// Shared memory.
    Shmem,
    /// In none: the page of zeros that reads of untouched memory see, or a page that was set aside (`hugetlbfs`).
    Uncounted,
}

/// A page that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// What kind of memory it is.
    pub kind: PageKind,
    /// How many pages were allocated together with it (a folio), itself included,
    pub together: u32,
    /// and how many of them come before it.
    pub before: u32,
}

/// Looks at pages.
#[derive(Debug, Default)]
pub struct PageLooks {
    flags: Option<File>,
    /// See [`WHOLE_FOLIOS`].
    whole_folios: bool,
    maps: HashMap<u32, Option<File>>,
    looks: u64,
}

impl PageLooks {
    /// Opens the table of pages; where that is not allowed, nothing will be known of any page.
    pub fn new() -> Self {
        let flags = File::open("/proc/kpageflags");
        if let Err(error) = &flags {
            tracing::warn!(
                "/proc/kpageflags: {error}: huge pages will count as small ones; add CAP_SYS_ADMIN"
            );
        }
        let whole_folios = KernelRelease::running().is_none_or(|running| running >= WHOLE_FOLIOS);
        Self { flags: flags.ok(), whole_folios, ..Self::default() }
    }

    /// The page at `address` of process `pid`; `None` when it is not there or nothing may be known of it.
    pub fn page(&mut self, pid: u32, address: u64) -> Option<Page> {
        self.looks += 1;
        let [entry] = self.entries(pid, address / PAGE)?;
        let frame = entry & FRAME;
        if entry & PRESENT == 0 || frame == 0 {
            return None;
        }
        let [flags] = self.frame_flags(frame)?;
        let kind = match flags {
            _ if flags & (ZERO_PAGE | HUGETLB) != 0 => PageKind::Uncounted,
            _ if flags & ANON != 0 => PageKind::Anon,
            _ if flags & SWAP_BACKED != 0 => PageKind::Shmem,
            _ => PageKind::File,
        };
        let is_single = flags & (COMPOUND_HEAD | COMPOUND_TAIL) == 0;
        let (before, together) = if is_single { (0, 1) } else { self.folio(frame).unwrap_or((0, 1)) };
        Some(Page { kind, together, before })
    }

    /// How many pages are there of those that the kernel maps together with `page`, at `address`, when a file is read.
    pub fn pages_around(&mut self, pid: u32, address: u64, page: Page) -> u32 {
        let number = address / PAGE;
        let region = number & !(HUGE as u64 - 1);
        let entries: Option<[u64; HUGE]> = self.entries(pid, region);
        let Some(entries) = entries else { return 1 };
        let at = (number - region) as usize;
        let present = |first: usize, last: usize| {
            entries[first..last.min(HUGE)].iter().filter(|entry| **entry & PRESENT != 0).count() as u32
        };
        let window = at & !(AROUND - 1);
        let around = present(window, window + AROUND);
        let (before, together) = (page.before as usize, page.together as usize);
        let folio = present(at.saturating_sub(before), at + together.saturating_sub(before));
        if self.whole_folios { around.max(folio) } else { around }
    }

    /// Closes what belongs to processes, whose numbers may be others' soon.
    pub fn close(&mut self) {
        self.maps.clear();
    }

    /// How often a page was looked at.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// How many pages of the folio that `frame` lies in come before it, and how many it has. Folios are aligned to their size, and of 512 pages at most.
    fn folio(&self, frame: u64) -> Option<(u32, u32)> {
        let first = frame & !(HUGE as u64 - 1);
        let flags: [u64; HUGE] = self.frame_flags(first)?;
        let at = (frame - first) as usize;
        let head = (0..=at).rev().find(|index| flags[*index] & COMPOUND_HEAD != 0)?;
        let tails = flags[head + 1..].iter().take_while(|flags| **flags & COMPOUND_TAIL != 0).count();
        Some(((at - head) as u32, tails as u32 + 1))
    }

    fn entries<const N: usize>(&mut self, pid: u32, first: u64) -> Option<[u64; N]> {
        if self.maps.len() >= MOST_OPEN && !self.maps.contains_key(&pid) {
            self.maps.clear();
        }
        let map = self.maps.entry(pid).or_insert_with(|| File::open(format!("/proc/{pid}/pagemap")).ok());
        read_words(map.as_ref()?, first)
    }

    fn frame_flags<const N: usize>(&self, first: u64) -> Option<[u64; N]> {
        read_words(self.flags.as_ref()?, first)
    }
}

/// Words `first` and following of a file.
fn read_words<const N: usize>(file: &File, first: u64) -> Option<[u64; N]> {
    let mut words = [[0; ENTRY as usize]; N];
    file.read_exact_at(words.as_flattened_mut(), first * ENTRY).ok()?;
    Some(words.map(u64::from_ne_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One's own memory is anonymous once it was written; its code is a file's; what was never touched is not there.
    #[test]
    fn own_pages_are_told_apart() {
        let mut looks = PageLooks::new();
        if looks.flags.is_none() {
            return;
        }
        let pid = std::process::id();
        let mut written = vec![0u8; 1 << 20];
        written.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        let kind = |looks: &mut PageLooks, address: u64| looks.page(pid, address).map(|page| page.kind);
        assert_eq!(kind(&mut looks, written.as_ptr() as u64 + 8192), Some(PageKind::Anon));
        let code = own_pages_are_told_apart as *const () as u64;
        assert_eq!(kind(&mut looks, code), Some(PageKind::File));
        let page = looks.page(pid, code).expect("it runs");
        assert!(page.before < page.together);
        assert!((1..=512).contains(&looks.pages_around(pid, code, page)));
        assert_eq!(kind(&mut looks, 4096), None);
        assert_eq!(kind(&mut looks, u64::MAX - 4095), None);
        assert_eq!(looks.page(u32::MAX, code), None);
    }
}
