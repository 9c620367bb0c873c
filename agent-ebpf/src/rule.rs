//! Unwind rules and rows: how to get from a frame to its caller, in a form that the eBPF program can follow.
//!
//! A rule speaks of three registers only, which every architecture has: the instruction pointer, the stack pointer and
//! the frame pointer. Offsets count in words of 8 bytes, so that 16 bits reach 256 KiB either way. Frames larger than that
//! are [`kind::SP_FAR`]; what else does not fit is [`kind::SLOW`].

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
    /// As [`SP`], in functions whose frame is larger than 256 KiB: `cfa_offset` holds the low 16 bits of the offset in words and
    /// `ra_offset` the high ones; the return address lies right below the CFA. Rare, but rustc has one of 527 KiB below
    /// all that its main thread does: without this kind no sample of it could be finished by rows.
    pub const SP_FAR: u8 = 9;
    /// `cfa = fp + cfa_offset`, on another stack, which may lie anywhere: code that switches stacks.
    pub const FP_SWITCH: u8 = 10;
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

impl Rule {
    /// A rule of [`kind::SP_FAR`]: `cfa_words` words from the stack pointer to the CFA.
    pub const fn far(cfa_words: i32, fp: u8, fp_offset: i16) -> Self {
        let (cfa_offset, ra_offset) = (cfa_words as i16, (cfa_words >> 16) as i16);
        Self { kind: kind::SP_FAR, fp, cfa_offset, fp_offset, ra_offset }
    }

    /// What is added to the register, in words ([`kind::PLT`]: bytes).
    #[inline]
    pub const fn cfa_words(self) -> i64 {
        match self.kind {
            kind::SP_FAR => (self.ra_offset as i64) << 16 | self.cfa_offset as u16 as i64,
            _ => self.cfa_offset as i64,
        }
    }

    /// Where the return address lies, relative to the CFA, in words.
    #[inline]
    pub const fn return_words(self) -> i64 {
        match self.kind {
            kind::SP_FAR => -1,
            _ => self.ra_offset as i64,
        }
    }
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
    let far = Rule::far(67510, fp::SAVED, -2);
    assert!(far.cfa_words() == 67510 && far.return_words() == -1 && far.fp_offset == -2);
    assert!(row_offset(row(16383, 65535)) == 16383 && row_rule(row(16383, 65535)) == 65535);
};
