//! Stacks. The seam that every program family uses: frames go into the record's frame area.

use agent_ebpf::{FRAMES_BYTES, MAX_KERNEL_FRAMES, MAX_USER_FRAMES};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_F_USER_STACK;
use aya_ebpf::helpers::generated::bpf_get_stack;

/// A run of frames that was written, in bytes, and whether frames had to be left out.
#[derive(Clone, Copy)]
pub(crate) struct Walked {
    /// Bytes written; a multiple of 8 below [`FRAMES_BYTES`].
    pub(crate) bytes: usize,
    /// Whether the record was too small for the stack.
    pub(crate) depth: bool,
}

/// Writes the kernel stack, leaf first, to `to`, which has room for [`FRAMES_BYTES`]. Empty when the sample
/// hit user mode.
#[inline(always)]
pub(crate) fn kernel_stack<C: EbpfContext>(context: &C, to: *mut u8) -> Walked {
    walk(context, to, MAX_KERNEL_FRAMES, 0)
}

/// Writes the user stack, leaf first, to `to`, which has room for [`FRAMES_BYTES`]: a walk by frame pointers.
/// When the sample hit the kernel the walk begins at the registers that the task entered it with. Empty for kernel threads.
#[inline(always)]
pub(crate) fn user_stack<C: EbpfContext>(context: &C, to: *mut u8) -> Walked {
    walk(context, to, MAX_USER_FRAMES, u64::from(BPF_F_USER_STACK))
}

#[inline(always)]
fn walk<C: EbpfContext>(context: &C, to: *mut u8, max_frames: usize, flags: u64) -> Walked {
    let size = (max_frames * size_of::<u64>()) as u32;
    // SAFETY: `to` has room for FRAMES_BYTES > size bytes (callers pass parts of a `Scratch`), and the
    // context is the program's own.
    let written = unsafe { bpf_get_stack(context.as_ptr(), to.cast(), size, flags) };
    if written <= 0 {
        return Walked { bytes: 0, depth: false };
    }
    // The mask is for the verifier: LLVM may move or drop a comparison, a mask stays where the value is used.
    Walked { bytes: (written as usize) & (FRAMES_BYTES - 8), depth: written >= i64::from(size) }
}
