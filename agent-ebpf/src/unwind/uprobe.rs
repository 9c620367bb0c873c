//! What uprobes, anybody's, change in a task, and how it would be without them.
//!
//! - When a function under a uretprobe is entered, the kernel puts the address of a trampoline where its return address was, and
//!   keeps what was there in a list of the task's, innermost call first (`prepare_uretprobe` in `kernel/events/uprobes.c`). Each
//!   entry knows the stack pointer at the function's entry, which is where the return address lay.
//! - An instruction under a probe is executed out of line: a copy of it, in a page of its own, in single steps (`pre_ssout`).

use agent_ebpf::{Cursor, SLICE_BYTES, UprobeOffsets};
use aya_ebpf::helpers::generated::bpf_get_current_task;

use crate::context::Context;
use crate::record::ClaimedScratch;
use crate::unwind::registers::{UserRegisters, read_kernel};

/// Set by the agent before loading, from the kernel's BTF.
#[unsafe(no_mangle)]
static UPROBE_OFFSETS: UprobeOffsets = UprobeOffsets {
    task_utask: 0,
    instances: 0,
    stack: 0,
    address: 0,
    next: 0,
    area: 0,
    trampoline: 0,
    probed: 0,
    out_of_line: 0,
};

/// Entries that are looked at for one frame: several probes on one function have an entry each.
const MAX_ENTRIES: u32 = 16;
/// Entries whose return addresses are put back into a slice of stack. The kernel allows 64 (`MAX_URETPROBE_DEPTH`); a thread with
/// more than a few is deep in a recursion, of which the walk in the kernel has found most.
const MAX_RESTORED: u32 = 16;
/// Bytes of the area that holds the trampoline, at its beginning, and the copies of instructions: a page.
const AREA_BYTES: u64 = 4096;

/// A member of [`UPROBE_OFFSETS`], read volatile so that the initial value is not taken for the final one; one at a time, because a
/// copy of them all would take bytes of the BPF stack, of which a program and its callback have 512 together.
macro_rules! offset {
    ($member:ident) => {
        // SAFETY: a static in `.rodata`.
        u64::from(unsafe { core::ptr::read_volatile(&raw const UPROBE_OFFSETS.$member) })
    };
}

/// The kernel's notes on uprobes in the current task; 0 when it never met one.
#[inline(always)]
fn notes() -> u64 {
    let utask = offset!(task_utask);
    if utask == 0 {
        return 0;
    }
    // SAFETY: a helper without arguments.
    read_kernel(unsafe { bpf_get_current_task() } + utask)
}

/// Where the trampoline of address space `image` is; 0 when it has none.
#[inline(always)]
fn trampoline(image: u64) -> u64 {
    match read_kernel(image + offset!(area)) {
        0 => 0,
        area => read_kernel(area + offset!(trampoline)),
    }
}

/// The entry, from `entry` on, whose return address lay at `slot`: that address, and the next entry.
#[inline(always)]
fn find(mut entry: u64, slot: u64) -> Option<(u64, u64)> {
    for _ in 0..MAX_ENTRIES {
        if entry == 0 {
            break;
        }
        let stack = read_kernel(entry + offset!(stack));
        let next = read_kernel(entry + offset!(next));
        if stack == slot {
            return Some((read_kernel(entry + offset!(address)), next));
        }
        entry = next;
    }
    None
}

/// If a probe has led the task astray, says where it would be otherwise: at the instruction that is executed out of line, or where
/// the function that has just left for the trampoline really returns to.
#[inline(always)]
pub(super) fn straighten(registers: &mut UserRegisters, image: u64) {
    let notes = notes();
    if notes == 0 || image == 0 {
        return;
    }
    let (ip, sp) = registers.position();
    let trampoline = trampoline(image);
    if trampoline == 0 || ip.wrapping_sub(trampoline) >= AREA_BYTES {
        return;
    }
    if ip == trampoline {
        let innermost = read_kernel(notes + offset!(instances));
        if let Some((address, _)) = find(innermost, sp.wrapping_sub(8)) {
            registers.set_ip(address);
        }
    } else {
        // Behind the copy when the step has been taken already.
        let behind = ip.wrapping_sub(read_kernel(notes + offset!(out_of_line)));
        registers.set_ip(read_kernel(notes + offset!(probed)).wrapping_add(behind));
    }
}

/// If the cursor is at the trampoline, puts it where the function really returns to.
#[inline(always)]
pub(super) fn recover(cursor: &mut Cursor, image: u64) -> bool {
    let notes = notes();
    if notes == 0 || image == 0 || cursor.ip != trampoline(image) {
        return false;
    }
    let first = match cursor.return_instance {
        0 => read_kernel(notes + offset!(instances)),
        next => next,
    };
    match find(first, cursor.sp.wrapping_sub(8)) {
        Some((address, next)) if address != 0 => {
            cursor.ip = address;
            cursor.return_instance = next;
            true
        }
        _ => false,
    }
}

/// Puts the return addresses back into a slice of `bytes` of stack from `start` on, which lies at offset `at` of the body. The agent,
/// which finishes the walk, then need not know of uretprobes.
#[inline(always)]
pub(super) fn restore<C: Context>(scratch: &mut ClaimedScratch<C>, at: usize, start: u64, bytes: u64) {
    let notes = notes();
    if notes == 0 {
        return;
    }
    let mut entry = read_kernel(notes + offset!(instances));
    for _ in 0..MAX_RESTORED {
        if entry == 0 {
            break;
        }
        let into = read_kernel(entry + offset!(stack)).wrapping_sub(start);
        if into < SLICE_BYTES as u64 && into + 8 <= bytes {
            let slot = scratch.body_at(at + (into as usize & (SLICE_BYTES - 8)));
            let address = read_kernel(entry + offset!(address));
            // SAFETY: the masked offset and eight bytes lie in the slice's part of the body; aligned as all offsets are.
            unsafe { core::ptr::write_volatile(slot.cast::<u64>(), address) };
        }
        entry = read_kernel(entry + offset!(next));
    }
}
