//! Putting a record together and handing it over.

use agent_ebpf::{FRAMES_BYTES, SampleHeader, Scratch};
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_ringbuf_output, bpf_ringbuf_query};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};

/// Records of programs that run in timer interrupts. One ring per context: a program that interrupts
/// another inside the ring's own spinlock would stall on it. The agent sets the size before loading.
#[map]
pub(crate) static TIMER_RING: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Scratch records of programs that run in timer interrupts.
#[map]
static TIMER_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Set by the agent before loading: unread bytes in the ring from which on the reader is woken at once.
/// Below that it comes by itself, so that a sample costs no wake-up.
#[unsafe(no_mangle)]
static RING_WAKEUP_BYTES: u64 = 1 << 18;

/// This CPU's scratch record, claimed until it is dropped.
///
/// A plain flag is enough in timer context: whatever interrupts the program on this CPU has ended when it
/// goes on, so claims nest like brackets. (Programs that can be preempted need an atomic claim.)
pub(crate) struct ClaimedScratch(*mut Scratch);

impl ClaimedScratch {
    /// Claims the record, or `None` when the program has interrupted itself.
    #[inline(always)]
    pub(crate) fn claim() -> Option<Self> {
        let scratch = TIMER_SCRATCH.get_ptr_mut(0)?;
        // SAFETY: `scratch` points to this CPU's element, which only this CPU touches.
        unsafe {
            if core::ptr::read_volatile(&raw const (*scratch).busy) != 0 {
                return None;
            }
            core::ptr::write_volatile(&raw mut (*scratch).busy, 1);
        }
        Some(Self(scratch))
    }

    /// The header, to be filled.
    #[inline(always)]
    pub(crate) fn header(&mut self) -> &mut SampleHeader {
        // SAFETY: the record is claimed, so this is the only reference to it.
        unsafe { &mut (*self.0).header }
    }

    /// Where frames go, `offset` bytes after the first one; [`FRAMES_BYTES`] of room behind it.
    #[inline(always)]
    pub(crate) fn frames_at(&mut self, offset: usize) -> *mut u8 {
        // SAFETY: the mask keeps the offset below FRAMES_BYTES, and the area holds twice that.
        unsafe { (&raw mut (*self.0).frames).cast::<u8>().add(offset & (FRAMES_BYTES - 8)) }
    }

    /// Copies header and `frame_bytes` of frames into the ring; false when the ring is full.
    #[inline(always)]
    pub(crate) fn emit(&mut self, frame_bytes: usize) -> bool {
        let size = size_of::<SampleHeader>() + (frame_bytes & (2 * FRAMES_BYTES - 8));
        // SAFETY: header and frames are adjacent in `Scratch` (asserted in the ABI), `size` bytes lie in it.
        let result = unsafe {
            let ring = (&raw const TIMER_RING).cast_mut().cast();
            let record = (&raw mut (*self.0).header).cast();
            bpf_ringbuf_output(ring, record, size as u64, wakeup_flag())
        };
        result == 0
    }
}

impl Drop for ClaimedScratch {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: as in `claim`.
        unsafe { core::ptr::write_volatile(&raw mut (*self.0).busy, 0) }
    }
}

#[inline(always)]
fn wakeup_flag() -> u64 {
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
