//! A heap with a bound: what a reader allocates beyond its budget fails as if memory had run out.
//!
//! libFuzzer's own `-malloc_limit_mb` needs a sanitizer's allocator, and its `-rss_limit_mb` notices only what is touched. Here
//! one allocation too many ends the process where it is made, and the trace shows who made it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static HEAP: Bounded = Bounded;

thread_local! {
    /// Bytes that this thread may still allocate.
    static ROOM: Cell<isize> = const { Cell::new(isize::MAX) };
    /// Whether some were refused. Then there is room again: for the message and the trace that say so.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

struct Bounded;

/// Runs `work`, which may hold `bytes` of heap at once beyond what was there before. What exceeds that is not allocated, on
/// which Rust's collections abort the process.
///
/// # Panics
/// When the work goes on without what it was refused.
pub fn within<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let (result, refused) = run_within(bytes, work);
    assert!(!refused, "more than {bytes} bytes of heap were wanted");
    result
}

fn run_within<T>(bytes: usize, work: impl FnOnce() -> T) -> (T, bool) {
    let _end = Restore(ROOM.replace(isize::try_from(bytes).unwrap_or(isize::MAX)));
    REFUSED.set(false);
    let result = work();
    (result, REFUSED.replace(false))
}

/// Gives the room back also when the work panics.
struct Restore(isize);

impl Drop for Restore {
    fn drop(&mut self) {
        ROOM.set(self.0);
    }
}

/// Whether there was room for `bytes`, which is now taken. A panic's message always has room.
fn take(bytes: usize) -> bool {
    let room = ROOM.get().saturating_sub_unsigned(bytes);
    let fits = room >= 0 || REFUSED.get() || std::thread::panicking();
    if fits {
        ROOM.set(room);
    } else {
        REFUSED.set(true);
    }
    fits
}

fn give_back(bytes: usize) {
    ROOM.set(ROOM.get().saturating_add_unsigned(bytes));
}

// SAFETY: all memory comes from and goes to the system's allocator with the layouts that the caller gave; returning null says
// that there is none. The thread-local is a number without a destructor and is made without allocating.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise for `layout` is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: `block` came from `System` with this layout, as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While it is moved both are there.
        if !take(size) {
            return std::ptr::null_mut();
        }
        // SAFETY: as for `dealloc`; the caller promises that `size` is not 0 and does not overflow.
        let moved = unsafe { System.realloc(block, layout, size) };
        give_back(if moved.is_null() { size } else { layout.size() });
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(bytes: usize) -> bool {
        Vec::<u8>::new().try_reserve_exact(bytes).is_ok()
    }

    /// What fits is allocated, and freed room can be used again.
    #[test]
    fn allows_what_fits() {
        within(1000, || {
            assert!((0..10).all(|_| fits(900)));
            let held = vec![0_u8; 600];
            assert!(fits(400));
            drop(held);
            assert!(fits(1000));
        });
    }

    /// What does not fit is refused, once: what then says so has room. Afterwards there is no bound.
    #[test]
    fn refuses_what_does_not_fit() {
        let outcome = run_within(1000, || {
            let held = vec![0_u8; 600];
            let tries = [fits(500), fits(500)];
            drop(held);
            tries
        });
        assert_eq!(outcome, ([false, true], true));
        assert!(fits(1 << 20));
    }

    /// A vector that grows needs room for its old and its new place.
    #[test]
    fn counts_both_places_of_what_grows() {
        let grow =
            |bytes| run_within(1000, || Vec::<u8>::with_capacity(400).try_reserve_exact(bytes).is_ok());
        assert_eq!(grow(500), (true, false));
        assert_eq!(grow(900), (false, true));
    }

    /// Work that goes on without what it wanted is noticed all the same.
    #[test]
    #[should_panic(expected = "more than 1000 bytes of heap were wanted")]
    fn tells_of_what_was_refused() {
        within(1000, || fits(1001));
    }
}
