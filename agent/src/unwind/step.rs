//! One step by a row: what the eBPF program does for each frame, as a pure function.

use agent_ebpf::rule::{Rule, fp, kind};

use super::registers::{Architecture, Frame};

/// Where a rule leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// To the caller: `ip` is a return address, to be looked up one byte before.
    Caller(Frame),
    /// To code that a signal interrupted: `ip` is exact.
    Interrupted(Frame),
    /// Nowhere: the frame is the outermost, the stack is complete.
    End,
    /// To a return address of 0, which is how threads start where no rule says [`Step::End`].
    NullReturn,
    /// The stack cannot be read at this address.
    Unreadable(u64),
    /// The caller's frame would not lie above this one, or not at a multiple of 8 bytes: the rule or a register is wrong.
    Implausible,
    /// The rule needs the frame pointer, which an earlier rule lost.
    FramePointerLost,
    /// The rule is [`kind::SLOW`].
    NeedSlow,
    /// The rule is [`kind::NONE`], or of no kind that is known.
    NoInformation,
}

/// Follows `rule` from `frame`. `read_stack` gives the word at an address, None when it cannot.
pub fn step(
    architecture: Architecture,
    frame: Frame,
    rule: Rule,
    read_stack: impl Fn(u64) -> Option<u64>,
) -> Step {
    let outcome = match rule.kind {
        kind::END => Ok(Step::End),
        kind::SLOW => Ok(Step::NeedSlow),
        kind::SIGNAL => interrupted(architecture, frame, read_stack),
        kind::SP
        | kind::SP_FAR
        | kind::FP
        | kind::FP_SWITCH
        | kind::FP_DEREF
        | kind::SP_DEREF
        | kind::PLT => caller(architecture, frame, rule, read_stack),
        _ => Ok(Step::NoInformation),
    };
    outcome.unwrap_or_else(|failure| failure)
}

/// The failure is the outcome: what could not be read or used.
fn caller(
    architecture: Architecture,
    frame: Frame,
    rule: Rule,
    read_stack: impl Fn(u64) -> Option<u64>,
) -> Result<Step, Step> {
    let read = |address| read_stack(address).ok_or(Step::Unreadable(address));
    let cfa = canonical_frame_address(frame, rule, read)?;
    // The order is the eBPF program's: nothing is read by an address that is implausible.
    let least = frame.sp.checked_add(architecture.least_frame()).ok_or(Step::Implausible)?;
    let descends = cfa < least && rule.kind != kind::FP_SWITCH;
    if descends || cfa % 8 != 0 {
        return Err(Step::Implausible);
    }
    let ip = read(words(cfa, rule.return_words()))?;
    if ip == 0 {
        return Err(Step::NullReturn);
    }
    let mut caller = Frame { ip, sp: cfa, ..frame };
    match rule.fp {
        fp::SAME => {}
        fp::SAVED => {
            caller.fp = read(words(cfa, rule.fp_offset.into()))?;
            caller.fp_known = true;
        }
        fp::AT_FP => {
            caller.fp = read(words(known_fp(frame)?, rule.fp_offset.into()))?;
        }
        _ => caller.fp_known = false,
    }
    Ok(Step::Caller(caller))
}

fn canonical_frame_address(
    frame: Frame,
    rule: Rule,
    read: impl Fn(u64) -> Result<u64, Step>,
) -> Result<u64, Step> {
    Ok(match rule.kind {
        kind::SP | kind::SP_FAR => words(frame.sp, rule.cfa_words()),
        kind::FP | kind::FP_SWITCH => words(known_fp(frame)?, rule.cfa_words()),
        kind::FP_DEREF => read(words(known_fp(frame)?, rule.cfa_words()))?,
        kind::SP_DEREF => read(words(frame.sp, rule.cfa_words()))?.wrapping_add(8),
        // The stub pushes one word on its way; stubs are aligned to their 16 bytes.
        _ => {
            let pushed = frame.ip % 16 >= u64::from(rule.cfa_offset.unsigned_abs());
            frame.sp.wrapping_add(8 + 8 * u64::from(pushed))
        }
    })
}

fn interrupted(
    architecture: Architecture,
    frame: Frame,
    read_stack: impl Fn(u64) -> Option<u64>,
) -> Result<Step, Step> {
    let read = |offset| {
        let address = frame.sp.wrapping_add(offset);
        read_stack(address).ok_or(Step::Unreadable(address))
    };
    let saved = architecture.signal_frame();
    let interrupted = Frame { ip: read(saved.ip)?, sp: read(saved.sp)?, fp: read(saved.fp)?, fp_known: true };
    // No check of the order: a handler may run on a stack of its own.
    if interrupted.ip == 0 { Err(Step::NullReturn) } else { Ok(Step::Interrupted(interrupted)) }
}

fn known_fp(frame: Frame) -> Result<u64, Step> {
    if frame.fp_known { Ok(frame.fp) } else { Err(Step::FramePointerLost) }
}

fn words(base: u64, offset: i64) -> u64 {
    base.wrapping_add_signed(offset * 8)
}
