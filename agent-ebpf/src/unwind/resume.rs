//! What the agent needs to finish a walk: where it stopped, the registers, and a slice of the stack.

use agent_ebpf::{FRAMES_BYTES, Resume, SLICE_BYTES, SliceBudget};
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

use crate::record::ClaimedScratch;
use crate::unwind::registers::UserRegisters;

/// What each CPU has sent.
#[map]
static SLICE_BUDGET: PerCpuArray<SliceBudget> = PerCpuArray::with_max_entries(1, 0);

/// Set by the agent before loading: slices that a CPU may send in a second. The agent has to finish each of them.
#[unsafe(no_mangle)]
static SLICES_PER_SECOND: u64 = 200;

/// Takes one slice off this CPU's budget; false when it is used up until the next second.
#[inline(always)]
pub(super) fn take_from_budget(timestamp: u64) -> bool {
    let Some(budget) = SLICE_BUDGET.get_ptr_mut(0) else { return false };
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
pub(super) fn append(scratch: &mut ClaimedScratch, at: usize, registers: &UserRegisters) -> usize {
    let at = at & (2 * FRAMES_BYTES - 8);
    let cursor = *scratch.cursor();
    let mut leaf = agent_ebpf::Cursor::default();
    registers.load(&mut leaf);
    let near = cursor.sp.wrapping_sub(leaf.sp) < NEAR;
    let sp = (if near { leaf.sp } else { cursor.sp }) & !7;
    // The page below may not be there, and would take the slice with it.
    let start = sp - if sp & (CHUNK - 1) < RED_ZONE { sp & (CHUNK - 1) } else { RED_ZONE };
    let copied = copy_stack(scratch, at + size_of::<Resume>(), start);
    // SAFETY: `at` is masked, and the body has room for a `Resume` behind it; alignment is 8 as all offsets are.
    let resume = unsafe { &mut *scratch.body_at(at).cast::<Resume>() };
    resume.ip = cursor.ip;
    resume.sp = cursor.sp;
    resume.fp = cursor.fp;
    resume.slice_start = start;
    resume.returned = cursor.returned;
    resume.slice_bytes = copied as u32;
    registers.store(&mut resume.registers);
    size_of::<Resume>() + copied
}

/// Copies the stack from `start` upward until it ends or the slice is full. The result is the number of bytes.
#[inline(always)]
fn copy_stack(scratch: &mut ClaimedScratch, at: usize, start: u64) -> usize {
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
    copied as usize & (2 * SLICE_BYTES - 8)
}
