//! What the agent needs to finish a walk: where it stopped, the registers, and a slice of the stack.

use agent_ebpf::{
    Cursor, FRAMES_BYTES, MAX_PIECES, Resume, SLICE_BYTES, SampleHeader, SliceBudget, SlicePiece, kind,
};
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

use crate::context::Context;
use crate::record::ClaimedScratch;
use crate::unwind::registers::UserRegisters;
use crate::unwind::uprobe;

/// What each CPU has sent: from where stacks are copied, and from where they are not.
#[map]
static SLICE_BUDGET: PerCpuArray<SliceBudget> = PerCpuArray::with_max_entries(2, 0);

/// Set by the agent before loading: slices that a CPU may send in a second. The agent has to finish each of them.
#[unsafe(no_mangle)]
static SLICES_PER_SECOND: u64 = 200;

/// Takes one slice off this CPU's budget; false when it is used up until the next second.
#[inline(always)]
pub(super) fn take_from_budget<C: Context>(timestamp: u64) -> bool {
    let Some(budget) = SLICE_BUDGET.get_ptr_mut(u32::from(!C::COPIES_STACKS)) else { return false };
    // SAFETY: this CPU's element. A program that interrupts this one between reading and writing makes the count wrong by one,
    // which is no harm. The static lies in `.rodata`.
    unsafe {
        let second = timestamp / 1_000_000_000;
        if (*budget).second != second {
            *budget = SliceBudget { second, sent: 0 };
        }
        (*budget).sent += 1;
        (*budget).sent <= core::ptr::read_volatile(&raw const SLICES_PER_SECOND)
    }
}

/// Bytes that are copied at a time: a page, because a read that meets an unmapped page fails as a whole.
const CHUNK: u64 = 4096;
/// Bytes below the stack pointer that are the function's own (System V ABI, AMD64, section 3.2.2). CFI leads there: it goes on
/// saying where a register was saved after an epilogue has popped it.
const RED_ZONE: u64 = 128;
/// A walk that stopped within this many bytes of its beginning is done again from there, with all registers known.
const NEAR: u64 = 4096;

/// Appends a [`Resume`] and the stack at offset `at` of the body. The result is the number of bytes.
#[inline(always)]
pub(super) fn append<C: Context>(
    scratch: &mut ClaimedScratch<C>,
    at: usize,
    registers: &UserRegisters,
) -> usize {
    let at = at & (2 * FRAMES_BYTES - 8);
    let Cursor { ip, sp, fp, returned, .. } = *scratch.cursor();
    let (_, leaf_sp) = registers.position();
    let near = sp.wrapping_sub(leaf_sp) < NEAR;
    let from = (if near { leaf_sp } else { sp }) & !7;
    // The page below may not be there, and would take the slice with it.
    let start = from - if from & (CHUNK - 1) < RED_ZONE { from & (CHUNK - 1) } else { RED_ZONE };
    let slice_at = at + size_of::<Resume>();
    let mut copied = if C::COPIES_STACKS { copy_stack(scratch, slice_at, start) } else { 0 };
    if C::COPIES_STACKS && copied as u64 == SLICE_BYTES as u64 - (start & (CHUNK - 1)) {
        send_pieces(scratch, slice_at, start + copied as u64);
        copied = copy_stack(scratch, slice_at, start);
    }
    // SAFETY: `at` is masked, and the body has room for a `Resume` behind it; alignment is 8 as all offsets are.
    let resume = unsafe { &mut *scratch.body_at(at).cast::<Resume>() };
    resume.ip = ip;
    resume.sp = sp;
    resume.fp = fp;
    resume.slice_start = start;
    resume.returned = returned;
    resume.slice_bytes = copied as u32;
    registers.store(&mut resume.registers);
    size_of::<Resume>() + copied
}

/// Sends what lies above the record's own slice, from `start` on, ahead of the record: a compiler's stack is often deeper than one
/// slice. The pieces are put together where the slice belongs, which has to be copied again afterwards.
#[inline(always)]
fn send_pieces<C: Context>(scratch: &mut ClaimedScratch<C>, slice_at: usize, mut start: u64) {
    let at = slice_at - size_of::<SlicePiece>();
    for _ in 0..MAX_PIECES {
        if !take_from_budget::<C>(scratch.header().timestamp) {
            break;
        }
        let bytes = copy_stack(scratch, slice_at, start) & (2 * SLICE_BYTES - 8);
        if bytes == 0 {
            break;
        }
        let header: *const SampleHeader = scratch.header();
        // SAFETY: there is a `Resume`'s room before the slice, which is larger; alignment is 8 as all offsets are. Member by member
        // and behind a pointer, because a structure of its own would take the BPF stack's last bytes.
        unsafe {
            let piece = scratch.body_at(at).cast::<SlicePiece>();
            (*piece).sequence = (*header).sequence;
            (*piece).timestamp = (*header).timestamp;
            (*piece).start = start;
            (*piece).bytes = bytes as u64;
            (*piece).pid = (*header).pid;
            (*piece).tid = (*header).tid;
            (*piece).cpu = (*header).cpu;
            (*piece).kind = kind::SLICE;
            (*piece).slot = (*header).slot;
        }
        if !scratch.emit_body(at, size_of::<SlicePiece>() + bytes) || bytes < SLICE_BYTES {
            break;
        }
        start += bytes as u64;
    }
}

/// Copies the stack from `start` upward until it ends or the slice is full. The result is the number of bytes.
#[inline(always)]
fn copy_stack<C: Context>(scratch: &mut ClaimedScratch<C>, at: usize, start: u64) -> usize {
    let mut copied = 0u64;
    // Four whole pages take five chunks when the first one is a part.
    for _ in 0..SLICE_BYTES as u64 / CHUNK {
        let address = start.wrapping_add(copied);
        let size = (CHUNK - (address & (CHUNK - 1))) & (2 * CHUNK - 1);
        let to = scratch.body_at(at + (copied as usize & (SLICE_BYTES - 1)));
        // SAFETY: the masked offset and a chunk lie in the body (it has a chunk to spare); a fault is an error.
        let result =
            unsafe { bpf_probe_read_user(to.cast(), size as u32, address as *const core::ffi::c_void) };
        if result != 0 {
            break;
        }
        copied += size;
    }
    uprobe::restore(scratch, at, start, copied);
    copied as usize & (2 * SLICE_BYTES - 8)
}
