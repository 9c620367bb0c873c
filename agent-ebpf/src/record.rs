//! Putting a record together and handing it over.

use agent_ebpf::{BODY_BYTES, Cursor, SLICE_BYTES, SampleHeader, Scratch, flag, walk};
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_ringbuf_output, bpf_ringbuf_query};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};

/// Records of programs that run in timer interrupts. One ring per context: a program that interrupts
/// another inside the ring's own spinlock would stall on it. The agent sets the size before loading.
#[map]
pub(crate) static TIMER_RING: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Scratch records. One per CPU and context: a program can be interrupted by another of a higher context.
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Set by the agent before loading: unread bytes in the ring from which on the reader is woken at once.
/// Below that it comes by itself, so that a sample costs no wake-up, unless it tells what the unwind tables lack.
#[unsafe(no_mangle)]
static RING_WAKEUP_BYTES: u64 = 1 << 18;

/// Names a scratch record of this CPU. Callbacks get this instead of a pointer: the verifier wants to see where a pointer came from.
#[derive(Clone, Copy)]
pub(crate) struct ScratchSlot(u32);

impl ScratchSlot {
    /// The record of programs that run in timer interrupts.
    pub(crate) const TIMER: Self = Self(0);

    /// As a plain number, to be passed to a global function.
    #[inline(always)]
    pub(crate) fn index(self) -> u32 {
        self.0
    }

    /// The reverse of [`Self::index`]. A number that names no record is harmless: nothing is found by it.
    #[inline(always)]
    pub(crate) fn from_index(index: u32) -> Self {
        Self(index)
    }

    #[inline(always)]
    fn get(self) -> Option<*mut Scratch> {
        SCRATCH.get_ptr_mut(self.0)
    }

    /// The walk's cursor and the body's first byte, of a record that is claimed.
    #[inline(always)]
    pub(crate) fn cursor_and_body(self) -> Option<(&'static mut Cursor, *mut u8)> {
        let scratch = self.get()?;
        // SAFETY: the record is claimed by the program that this is a callback of; it does not touch it meanwhile.
        unsafe { Some((&mut (*scratch).cursor, (&raw mut (*scratch).body).cast())) }
    }
}

/// This CPU's scratch record, claimed until it is dropped.
///
/// A plain flag is enough in timer context: whatever interrupts the program on this CPU has ended when it
/// goes on, so claims nest like brackets. (Programs that can be preempted need an atomic claim.)
pub(crate) struct ClaimedScratch {
    slot: ScratchSlot,
    scratch: *mut Scratch,
}

impl ClaimedScratch {
    /// Claims the record, or `None` when the program has interrupted itself.
    #[inline(always)]
    pub(crate) fn claim(slot: ScratchSlot) -> Option<Self> {
        let scratch = slot.get()?;
        // SAFETY: `scratch` points to this CPU's element, which only this CPU touches.
        unsafe {
            if core::ptr::read_volatile(&raw const (*scratch).busy) != 0 {
                return None;
            }
            core::ptr::write_volatile(&raw mut (*scratch).busy, 1);
        }
        Some(Self { slot, scratch })
    }

    /// Which record it is.
    #[inline(always)]
    pub(crate) fn slot(&self) -> ScratchSlot {
        self.slot
    }

    /// The header, to be filled.
    #[inline(always)]
    pub(crate) fn header(&mut self) -> &mut SampleHeader {
        // SAFETY: the record is claimed, so this is the only reference to it.
        unsafe { &mut (*self.scratch).header }
    }

    /// Where the walk of the user stack is.
    #[inline(always)]
    pub(crate) fn cursor(&mut self) -> &mut Cursor {
        // SAFETY: as in `header`.
        unsafe { &mut (*self.scratch).cursor }
    }

    /// The body from `offset` on. The caller has bounded the offset with masks, so that what it writes stays inside.
    #[inline(always)]
    pub(crate) fn body_at(&mut self, offset: usize) -> *mut u8 {
        // SAFETY: the caller's bound; the verifier checks it once more.
        unsafe { (&raw mut (*self.scratch).body).cast::<u8>().add(offset) }
    }

    /// Copies header and `body_bytes` into the ring; false when the ring is full.
    #[inline(always)]
    pub(crate) fn emit(&mut self, body_bytes: usize) -> bool {
        let size = (size_of::<SampleHeader>() + body_bytes).min(size_of::<SampleHeader>() + BODY_BYTES);
        let SampleHeader { walk, flags, .. } = *self.header();
        // Without a slice the agent learns nothing; so the budget for slices bounds these wake-ups too.
        let urgent = walk::teaches(walk) && flags & flag::NO_SLICE == 0;
        // SAFETY: header and body are adjacent in `Scratch` (asserted in the ABI), `size` bytes lie in it.
        let result = unsafe {
            let ring = (&raw const TIMER_RING).cast_mut().cast();
            let record = (&raw mut (*self.scratch).header).cast();
            bpf_ringbuf_output(ring, record, size as u64, wakeup_flag(urgent))
        };
        result == 0
    }

    /// Copies `size` bytes of the body from `at` on into the ring, as a record of their own; false when the ring is full.
    #[inline(always)]
    pub(crate) fn emit_body(&mut self, at: usize, size: usize) -> bool {
        let size = size & (2 * SLICE_BYTES - 1);
        // SAFETY: the caller's bound; the verifier checks it once more.
        let result = unsafe {
            let ring = (&raw const TIMER_RING).cast_mut().cast();
            bpf_ringbuf_output(ring, self.body_at(at).cast(), size as u64, u64::from(BPF_RB_NO_WAKEUP))
        };
        result == 0
    }
}

impl Drop for ClaimedScratch {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: as in `claim`.
        unsafe { core::ptr::write_volatile(&raw mut (*self.scratch).busy, 0) }
    }
}

#[inline(always)]
fn wakeup_flag(urgent: bool) -> u64 {
    if urgent {
        return u64::from(BPF_RB_FORCE_WAKEUP);
    }
    // SAFETY: the map is a ring buffer, the static lies in `.rodata`.
    let (unread, limit) = unsafe {
        let ring = (&raw const TIMER_RING).cast_mut().cast();
        (
            bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA)),
            core::ptr::read_volatile(&raw const RING_WAKEUP_BYTES),
        )
    };
    u64::from(if unread >= limit { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}
