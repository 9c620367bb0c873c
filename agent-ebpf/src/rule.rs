//! Unwind rules and rows: how to get from a frame to its caller, in a form that the eBPF program can follow.
//!
//! A rule speaks of three registers only, which every architecture has: the instruction pointer, the stack pointer and
//! the frame pointer. Offsets count in words of 8 bytes, so that 16 bits reach 256 KiB either way; what does not
//! fit is [`kind::SLOW`].

/// What a rule does, in [`Rule::kind`].
pub mod kind {
    /// There is no unwind information for this code.
    pub const NONE: u8 = 0;
    /// `cfa = sp + cfa_offset`.
    pub const SP: u8 = 1;
    /// `cfa = fp + cfa_offset`.
    pub const FP: u8 = 2;
    /// `cfa = *(fp + cfa_offset)`: functions that realign their stack.
    pub const FP_DEREF: u8 = 3;
    /// `cfa = *(sp + cfa_offset) + 8`: hand-written code that saves its caller's stack pointer.
    pub const SP_DEREF: u8 = 4;
    /// A stub of the procedure linkage table, 16 bytes long: `cfa = sp + 8`, and 8 more from byte `cfa_offset` of the
    /// stub on (not in words).
    pub const PLT: u8 = 5;
    /// The trampoline that a signal handler returns to: the interrupted registers lie in the signal frame at `sp`.
    pub const SIGNAL: u8 = 6;
    /// The outermost frame: the stack is complete.
    pub const END: u8 = 7;
    /// There is information, but this form cannot express it.
    pub const SLOW: u8 = 8;
}

/// Where the caller's frame pointer is, in [`Rule::fp`].
pub mod fp {
    /// In the register still.
    pub const SAME: u8 = 0;
    /// At `cfa + fp_offset`.
    pub const SAVED: u8 = 1;
    /// Somewhere that this form cannot express: it is not known any more.
    pub const LOST: u8 = 2;
    /// At `fp + fp_offset`: functions that realign their stack, whose frame pointer and CFA do not lie at a fixed distance.
    pub const AT_FP: u8 = 3;
}

/// How to get from a frame to its caller. The caller's stack pointer is the CFA.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// One of [`kind`].
    pub kind: u8,
    /// One of [`fp`].
    pub fp: u8,
    /// What is added to the register, in words ([`kind::PLT`]: bytes).
    pub cfa_offset: i16,
    /// Where the caller's frame pointer lies, relative to the CFA ([`fp::AT_FP`]: to the frame pointer), in words.
    pub fp_offset: i16,
    /// Where the return address lies, relative to the CFA, in words: -1 on x86-64.
    pub ra_offset: i16,
}

/// Bytes of a text page: the unit in which rows are built, installed and evicted. A power of two.
pub const TEXT_PAGE: u64 = 16 << 10;

/// A row: from `offset` in its text page on, `rule` holds. Rows of a page are sorted, and as numbers too.
pub const fn row(offset: u16, rule: u16) -> u32 {
    (offset as u32) << 16 | rule as u32
}

/// The offset of a row in its text page.
pub const fn row_offset(row: u32) -> u16 {
    (row >> 16) as u16
}

/// The index of a row's rule.
pub const fn row_rule(row: u32) -> u16 {
    row as u16
}

const _: () = {
    assert!(size_of::<Rule>() == 8);
    assert!(core::mem::offset_of!(Rule, cfa_offset) == 2);
    assert!(core::mem::offset_of!(Rule, ra_offset) == 6);
    assert!(row_offset(row(16383, 65535)) == 16383 && row_rule(row(16383, 65535)) == 65535);
};
