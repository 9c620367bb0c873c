//! An allocator that counts, for tests that hold what tables say of their size against what they take.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counted. A test that uses it says `#[global_allocator] static HEAP: CountedHeap = CountedHeap;`.
pub(crate) struct CountedHeap;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for CountedHeap {
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

/// Bytes that are allocated, as they were asked for.
pub(crate) fn now() -> usize {
    NOW.load(Ordering::Relaxed)
}

/// The most that was allocated at any one time since the last [`reset_peak`].
pub(crate) fn peak() -> usize {
    PEAK.load(Ordering::Relaxed)
}

/// Lets [`peak`] begin anew; what is allocated now.
pub(crate) fn reset_peak() -> usize {
    let now = now();
    PEAK.store(now, Ordering::Relaxed);
    now
}
