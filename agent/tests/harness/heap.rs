//! What is allocated, counted. A test that wants to know makes [`Counting`] its global allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, which counts.
pub(crate) struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promise is the same as is asked for here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above; `alloc` gave this pointer.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What is allocated beyond what was there when this was made. Only one at a time, and nothing else may run then.
pub(crate) struct Heap(usize);

impl Heap {
    pub(crate) fn new() -> Self {
        let before = NOW.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        Self(before)
    }

    /// Bytes that are allocated now.
    pub(crate) fn now(&self) -> usize {
        NOW.load(Ordering::Relaxed).saturating_sub(self.0)
    }

    /// The most bytes that were allocated at once.
    pub(crate) fn peak(&self) -> usize {
        PEAK.load(Ordering::Relaxed).saturating_sub(self.0)
    }
}
