//! One step of a walk: from a frame to its caller. The agent's `unwind::step` is the same function over a closure.

use agent_ebpf::rule::{Rule, fp, kind};
use agent_ebpf::tables::MAPPING_ANONYMOUS;
use agent_ebpf::{Cursor, FRAMES_BYTES, MAX_USER_FRAMES, walk};
use aya_ebpf::helpers::generated::bpf_probe_read_user;

use crate::record::ScratchSlot;
use crate::unwind::{tables, uprobe};

/// `struct rt_sigframe` at the trampoline, where `sp` is past the return address: offsets of the interrupted registers
/// (`ucontext.uc_mcontext`, `arch/x86/include/uapi/asm/sigcontext.h`).
mod signal_frame {
    pub(super) const FP: u64 = 120;
    pub(super) const SP: u64 = 160;
    pub(super) const IP: u64 = 168;
}

/// A frame pointer is believed when it lies this close above the stack pointer.
const MAX_FRAME: u64 = 1 << 20;

/// Takes a step; true when the walk has ended.
#[inline(always)]
pub(super) fn step(slot: ScratchSlot) -> bool {
    let Some((cursor, body)) = slot.cursor_and_body() else { return true };
    if cursor.depth >= MAX_USER_FRAMES as u32 {
        return end(cursor, walk::DEPTH);
    }
    push_frame(cursor, body);
    if cursor.mappings_count == 0 {
        return end(cursor, walk::NEW_PROCESS);
    }
    // A return address may be the next function's first byte; the call lies before it.
    let pc = cursor.ip.wrapping_sub(u64::from(cursor.returned != 0));
    let known = pc >= cursor.mapping_start && pc < cursor.mapping_end;
    if !known && !tables::find_mapping(cursor, pc) {
        let image = cursor.image;
        if uprobe::recover(cursor, image) {
            // The frame that was written is the trampoline's; the one that it stands for takes its place.
            cursor.depth -= 1;
            return false;
        }
        return end(cursor, walk::UNMAPPED);
    }
    if cursor.mapping_flags & MAPPING_ANONYMOUS != 0 {
        return by_frame_pointer(cursor);
    }
    let file_offset = pc - cursor.mapping_start + cursor.mapping_file;
    if !tables::find_page(cursor, file_offset) {
        return end(cursor, walk::COLD_PAGE);
    }
    match tables::rule_at(cursor, file_offset) {
        Some(rule) => apply(cursor, rule),
        None => end(cursor, walk::COLD_PAGE),
    }
}

#[inline(always)]
fn push_frame(cursor: &mut Cursor, body: *mut u8) {
    let offset =
        (cursor.frames_at as usize & (FRAMES_BYTES - 8)) + (cursor.depth as usize * 8 & (FRAMES_BYTES - 8));
    // All frames but the leaf are recorded so that their code lies a byte before, also one that a signal interrupted.
    let exact = cursor.returned == 0 && cursor.depth > 0;
    // SAFETY: two masked offsets below FRAMES_BYTES each; the body holds more than twice that.
    unsafe { core::ptr::write_volatile(body.add(offset).cast::<u64>(), cursor.ip + u64::from(exact)) };
    cursor.depth += 1;
}

#[inline(always)]
fn end(cursor: &mut Cursor, how: u16) -> bool {
    cursor.ended = u32::from(how);
    true
}

#[inline(always)]
fn apply(cursor: &mut Cursor, rule: Rule) -> bool {
    let offset = (rule.cfa_words() * 8) as u64;
    let cfa = match rule.kind {
        kind::SP | kind::SP_FAR => cursor.sp.wrapping_add(offset),
        kind::FP | kind::FP_SWITCH | kind::FP_DEREF if cursor.fp_lost != 0 => {
            return end(cursor, walk::LOST_FP);
        }
        kind::FP | kind::FP_SWITCH => cursor.fp.wrapping_add(offset),
        kind::FP_DEREF => match read_user(cursor.fp.wrapping_add(offset)) {
            Some(cfa) => cfa,
            None => return end(cursor, walk::UNREADABLE),
        },
        kind::SP_DEREF => match read_user(cursor.sp.wrapping_add(offset)) {
            Some(saved) => saved.wrapping_add(8),
            None => return end(cursor, walk::UNREADABLE),
        },
        kind::PLT => {
            let pushed = (cursor.ip & 15) >= u64::from(rule.cfa_offset as u16);
            cursor.sp.wrapping_add(8 + 8 * u64::from(pushed))
        }
        kind::SIGNAL => return leave_signal_handler(cursor),
        kind::END => return end(cursor, walk::COMPLETE),
        kind::NONE => return by_frame_pointer(cursor),
        _ => return end(cursor, walk::SLOW_RULE),
    };
    to_caller(cursor, rule, cfa)
}

#[inline(always)]
fn to_caller(cursor: &mut Cursor, rule: Rule, cfa: u64) -> bool {
    // Stacks ascend, but where the next one lies nobody knows.
    if cfa <= cursor.sp && rule.kind != kind::FP_SWITCH {
        return end(cursor, walk::BROKEN);
    }
    let Some(ip) = read_user(cfa.wrapping_add((rule.return_words() * 8) as u64)) else {
        return end(cursor, walk::UNREADABLE);
    };
    match rule.fp {
        fp::SAME => {}
        fp::SAVED | fp::AT_FP => {
            let base = if rule.fp == fp::SAVED { cfa } else { cursor.fp };
            let Some(saved) = read_user(base.wrapping_add((i64::from(rule.fp_offset) * 8) as u64)) else {
                return end(cursor, walk::UNREADABLE);
            };
            cursor.fp = saved;
            cursor.fp_lost = 0;
        }
        _ => cursor.fp_lost = 1,
    }
    cursor.ip = ip;
    cursor.sp = cfa;
    cursor.returned = 1;
    // Threads' first functions without an end mark have no return address.
    if ip == 0 { end(cursor, walk::COMPLETE) } else { false }
}

/// Code without unwind information: a frame pointer that is plausible is believed, else the agent has to look.
#[inline(always)]
fn by_frame_pointer(cursor: &mut Cursor) -> bool {
    let frame = cursor.fp;
    if frame == 0 && cursor.fp_lost == 0 && cursor.returned != 0 {
        // The chain's end: the thread (a goroutine, for example) began with a frame pointer of 0.
        return end(cursor, walk::COMPLETE);
    }
    let above = frame.wrapping_sub(cursor.sp);
    if cursor.fp_lost != 0 || frame & 7 != 0 || above >= MAX_FRAME {
        return end(cursor, walk::NO_RULE);
    }
    let (Some(caller_fp), Some(ip)) = (read_user(frame), read_user(frame.wrapping_add(8))) else {
        return end(cursor, walk::NO_RULE);
    };
    cursor.fp = caller_fp;
    cursor.ip = ip;
    cursor.sp = frame.wrapping_add(16);
    cursor.returned = 1;
    if ip == 0 { end(cursor, walk::COMPLETE) } else { false }
}

/// The interrupted code's registers, as the kernel saved them; its `ip` is no return address.
#[inline(always)]
fn leave_signal_handler(cursor: &mut Cursor) -> bool {
    let frame = cursor.sp;
    let registers = (
        read_user(frame.wrapping_add(signal_frame::IP)),
        read_user(frame.wrapping_add(signal_frame::SP)),
        read_user(frame.wrapping_add(signal_frame::FP)),
    );
    let (Some(ip), Some(sp), Some(fp)) = registers else { return end(cursor, walk::UNREADABLE) };
    cursor.ip = ip;
    cursor.sp = sp;
    cursor.fp = fp;
    cursor.fp_lost = 0;
    cursor.returned = 0;
    false
}

#[inline(always)]
fn read_user(address: u64) -> Option<u64> {
    let mut value = 0u64;
    // SAFETY: the destination has the size that is passed; a fault is an error, not a crash.
    let result =
        unsafe { bpf_probe_read_user((&raw mut value).cast(), 8, address as *const core::ffi::c_void) };
    (result == 0).then_some(value)
}
