//! Putting a record together and handing it over.

use core::marker::PhantomData;

use agent_ebpf::{BODY_BYTES, Cursor, SLICE_BYTES, SampleHeader, Scratch, flag, walk};
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_ringbuf_output, bpf_ringbuf_query};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;

use crate::context::Context;

/// Scratch records, see [`agent_ebpf::slot`]; the agent sets the number before loading.
#[map]
static SCRATCH: Array<Scratch> = Array::with_max_entries(1, 0);

/// Set by the agent before loading: unread bytes in a ring from which on the reader is woken at once.
/// Below that it comes by itself, so that a sample costs no wake-up, unless it tells what the unwind tables lack.
#[unsafe(no_mangle)]
static RING_WAKEUP_BYTES: u64 = 1 << 18;

/// Names a scratch record. Callbacks get this instead of a pointer: the verifier wants to see where a pointer came from.
#[derive(Clone, Copy)]
pub(crate) struct ScratchSlot(u32);

impl ScratchSlot {
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

/// A scratch record, claimed in context `C` until it is dropped.
pub(crate) struct ClaimedScratch<C: Context> {
    slot: ScratchSlot,
    scratch: *mut Scratch,
    context: PhantomData<C>,
}

impl<C: Context> ClaimedScratch<C> {
    /// Claims a record; `None` when there is none.
    #[inline(always)]
    pub(crate) fn claim() -> Option<Self> {
        let slot = ScratchSlot(C::claim()?);
        let Some(scratch) = slot.get() else {
            C::give_back(slot.0);
            return None;
        };
        Some(Self { slot, scratch, context: PhantomData })
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
        let urgent = walk::teaches(walk) && flags & flag::NO_SLICE == 0 || flags & flag::URGENT != 0;
        // SAFETY: header and body are adjacent in `Scratch` (asserted in the ABI), `size` bytes lie in it.
        let result = unsafe {
            let record = (&raw mut (*self.scratch).header).cast();
            bpf_ringbuf_output(C::ring(), record, size as u64, wakeup_flag::<C>(urgent))
        };
        result == 0
    }

    /// Copies `size` bytes of the body from `at` on into the ring, as a record of their own; false when the ring is full.
    #[inline(always)]
    pub(crate) fn emit_body(&mut self, at: usize, size: usize) -> bool {
        let size = size & (2 * SLICE_BYTES - 1);
        // SAFETY: the caller's bound; the verifier checks it once more.
        let result = unsafe {
            let record = self.body_at(at).cast();
            bpf_ringbuf_output(C::ring(), record, size as u64, u64::from(BPF_RB_NO_WAKEUP))
        };
        result == 0
    }
}

impl<C: Context> Drop for ClaimedScratch<C> {
    #[inline(always)]
    fn drop(&mut self) {
        C::give_back(self.slot.0);
    }
}

#[inline(always)]
fn wakeup_flag<C: Context>(urgent: bool) -> u64 {
    if urgent {
        return u64::from(BPF_RB_FORCE_WAKEUP);
    }
    // SAFETY: the map is a ring buffer, the static lies in `.rodata`.
    let (unread, limit) = unsafe {
        (
            bpf_ringbuf_query(C::ring(), u64::from(BPF_RB_AVAIL_DATA)),
            core::ptr::read_volatile(&raw const RING_WAKEUP_BYTES),
        )
    };
    u64::from(if unread >= limit { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}
