//! Stacks. The seam that every program family uses: frames go into the record's body.
//!
//! The user stack is walked by unwind rows that the agent puts into the arena on demand ([`tables`]). What is not
//! there, or what rows cannot express, ends the walk; the record then carries what the agent needs to finish it ([`resume`]).

mod registers;
mod resume;
mod step;
mod tables;
mod uprobe;

use agent_ebpf::{Cursor, FRAMES_BYTES, MAX_KERNEL_FRAMES, MAX_USER_FRAMES, flag, walk};
use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_loop};

pub(crate) use self::registers::SystemCall;
use crate::context::Context;
use crate::record::{ClaimedScratch, ScratchSlot};

/// A run of frames that was written, in bytes, and whether frames had to be left out.
#[derive(Clone, Copy)]
pub(crate) struct Walked {
    /// Bytes written; a multiple of 8 below [`FRAMES_BYTES`].
    pub(crate) bytes: usize,
    /// Whether the record was too small for the stack.
    pub(crate) depth: bool,
}

/// Writes the kernel stack, leaf first, to the body's beginning. Empty when the sample hit user mode.
#[inline(always)]
pub(crate) fn kernel_stack<C: Context, E: EbpfContext>(
    context: &E,
    scratch: &mut ClaimedScratch<C>,
) -> Walked {
    const SIZE: u32 = (MAX_KERNEL_FRAMES * size_of::<u64>()) as u32;
    let to = scratch.body_at(0);
    // SAFETY: the body has room for SIZE bytes, and the context is the program's own.
    let written = unsafe { bpf_get_stack(context.as_ptr(), to.cast(), SIZE, 0) };
    if written <= 0 {
        return Walked { bytes: 0, depth: false };
    }
    // The mask is for the verifier: LLVM may move or drop a comparison, a mask stays where the value is used.
    Walked { bytes: (written as usize) & (FRAMES_BYTES - 8), depth: written >= i64::from(SIZE) }
}

/// Walks the current task's user stack, leaf first, behind `kernel_bytes` of kernel frames; then appends what the agent needs to
/// finish the walk, if it has to. The result is the number of bytes behind the kernel frames; the header says the rest.
///
/// A sample that hit the kernel begins at the registers that the task entered it with.
#[inline(always)]
pub(crate) fn user_stack<K: KernelSupport, C: Context>(
    scratch: &mut ClaimedScratch<C>,
    kernel_bytes: usize,
    pid: u32,
) -> usize {
    let image = registers::current_image();
    scratch.header().image = image;
    let cursor = scratch.cursor();
    cursor.frames_at = kernel_bytes as u32;
    cursor.depth = 0;
    cursor.ended = u32::from(walk::NONE);
    cursor.returned = 0;
    cursor.fp_lost = 0;
    cursor.mapping_start = 0;
    cursor.mapping_end = 0;
    cursor.page_key = 0;
    cursor.return_instance = 0;
    cursor.image = image;
    let mut registers = registers::UserRegisters::read(K::registers_at());
    uprobe::straighten(&mut registers, image);
    let started = registers.load(cursor);
    if started {
        tables::find_mappings(cursor, pid, image);
        K::run(scratch.slot());
    }
    finish(scratch, kernel_bytes, &registers)
}

/// The system call that the current task is in.
#[inline(always)]
pub(crate) fn current_system_call<K: KernelSupport>() -> Option<SystemCall> {
    SystemCall::read(K::registers_at())
}

/// What a kernel offers to programs. Helpers that a kernel does not know make it refuse a program even where they are never
/// reached, so there is a program for each.
pub(crate) trait KernelSupport {
    /// Where the current task's user-mode registers lie.
    fn registers_at() -> u64;
    /// Takes steps until the walk ends.
    fn run(slot: ScratchSlot);
}

/// Kernels from 5.17 on.
pub(crate) struct Modern;

impl KernelSupport for Modern {
    #[inline(always)]
    fn registers_at() -> u64 {
        registers::UserRegisters::place_by_helper()
    }

    #[inline(always)]
    fn run(slot: ScratchSlot) {
        run_by_helper(slot);
    }
}

/// Kernels from 5.10 on: without `bpf_loop` and `bpf_task_pt_regs`.
pub(crate) struct Legacy;

impl KernelSupport for Legacy {
    #[inline(always)]
    fn registers_at() -> u64 {
        registers::UserRegisters::place_in_task_stack()
    }

    /// A loop with a fixed bound (5.3+), all of whose iterations the verifier follows: a step of its own function keeps them short.
    #[inline(always)]
    fn run(slot: ScratchSlot) {
        for _ in 0..=MAX_USER_FRAMES {
            if unwind_step(slot.index()) != 0 {
                break;
            }
        }
    }
}

/// [`step::step`] as a global function, that is one with external linkage and numbers for parameters and result: the verifier
/// (5.6+) looks at such a function once and by itself, for all numbers, and at none of its instructions where it is called.
/// Inlined into the loop of [`Legacy`], the steps took 730,000 of the million instructions that the verifier puts up with.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn unwind_step(slot: u32) -> u32 {
    u32::from(step::step(ScratchSlot::from_index(slot)))
}

/// `bpf_loop` verifies the callback once.
#[inline(always)]
fn run_by_helper(slot: ScratchSlot) {
    let mut context = slot;
    // SAFETY: the callback has the signature that the helper wants, and `context` outlives the call.
    unsafe {
        bpf_loop(
            MAX_USER_FRAMES as u32 + 1,
            step_callback as *mut core::ffi::c_void,
            (&raw mut context).cast(),
            0,
        );
    }
}

/// The callback of `bpf_loop`. Its state is in the scratch record, not on the stack: the verifier does not follow the
/// contents of maps, so every iteration looks alike to it and it looks at one.
#[inline(never)]
extern "C" fn step_callback(_index: u32, context: *mut ScratchSlot) -> i64 {
    // SAFETY: `run_by_helper` passed a pointer to its own variable.
    let slot = unsafe { *context };
    i64::from(step::step(slot))
}

#[inline(always)]
fn finish<C: Context>(
    scratch: &mut ClaimedScratch<C>,
    kernel_bytes: usize,
    registers: &registers::UserRegisters,
) -> usize {
    let Cursor { depth, ended, .. } = *scratch.cursor();
    let frame_bytes = (depth as usize * size_of::<u64>()) & (FRAMES_BYTES - 8);
    let header = scratch.header();
    header.user_frames = (frame_bytes / 8) as u16;
    header.walk = ended as u16;
    if !walk::resumes(ended as u16) {
        return frame_bytes;
    }
    // Without the stack the agent still learns what the tables lack.
    let wanted = C::COPIES_STACKS || walk::teaches(ended as u16);
    if !wanted || !resume::take_from_budget::<C>(header.timestamp) {
        header.flags |= flag::NO_SLICE;
        return frame_bytes;
    }
    frame_bytes + resume::append(scratch, kernel_bytes + frame_bytes, registers)
}
