//! The rows of one Go function on x86-64.
//!
//! A function with a frame saves the frame pointer right below the return address and lets it point there
//! (`cmd/internal/obj/x86/obj6.go`): from Go 1.21 on by `push %rbp; mov %rsp,%rbp; sub $N,%rsp`, before by
//! `sub $N,%rsp; mov %rbp,N-8(%rsp); lea N-8(%rsp),%rbp`. Go's tables say nothing of it; the code does.

use std::ops::Range;

use agent_ebpf::rule::{Rule, fp, kind};

use super::CfiError;
use super::page::Part;
use crate::symbol::elf::ElfImage;
use crate::symbol::gopclntab::GoRecord;
use crate::symbol::read_at::ReadAt;

/// Bytes before and behind a part of a page that its functions' first instructions may reach.
const MARGIN: u64 = 64;
/// Bytes of a prologue's longest store and address computation.
const PROLOGUE: usize = 16;

/// Where a frame pointer stands: a word below the return address.
const SAVED: Rule = Rule { kind: kind::SP, fp: fp::SAVED, cfa_offset: 0, fp_offset: -2, ra_offset: -1 };
/// By the frame pointer, whatever the stack pointer is.
const BY_FRAME: Rule = Rule { kind: kind::FP_SWITCH, cfa_offset: 2, ..SAVED };
const END: Rule = Rule { kind: kind::END, ..SLOW };
const SLOW: Rule = Rule { kind: kind::SLOW, fp: fp::SAME, cfa_offset: 0, fp_offset: 0, ra_offset: 0 };

/// The code of a part of a page and a little around it.
pub(super) struct Code<'a> {
    text: &'a dyn ReadAt,
    image: &'a ElfImage,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Code<'a> {
    pub(super) fn new(text: &'a dyn ReadAt, image: &'a ElfImage, part: &Part) -> Result<Self, CfiError> {
        let Range { start, end } = part.addresses;
        let mut code = Self { text, image, start, bytes: Vec::new() };
        let segment = image
            .executable_segments()
            .find(|segment| start.checked_sub(segment.address).is_some_and(|into| into < segment.file_size));
        let Some(segment) = segment else { return Ok(code) };
        code.start = start.saturating_sub(MARGIN).max(segment.address);
        let end = end.saturating_add(MARGIN).min(segment.address.saturating_add(segment.file_size));
        let offset = segment.file_offset.saturating_add(code.start - segment.address);
        let end = end.min(code.start.saturating_add(text.len().saturating_sub(offset)));
        code.bytes.resize((end - code.start) as usize, 0);
        text.read_exact_at(offset, &mut code.bytes)?;
        Ok(code)
    }

    /// `N` bytes at `address`; None where there is no such code.
    fn at<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let held =
            address.checked_sub(self.start).and_then(|into| self.bytes.get(usize::try_from(into).ok()?..));
        if let Some(bytes) = held.and_then(|bytes| bytes.first_chunk::<N>()) {
            return Some(*bytes);
        }
        // A function's beginning, pages before.
        let segment = self.image.executable_segments().find(|segment| {
            address.checked_sub(segment.address).is_some_and(|into| into < segment.file_size)
        })?;
        let mut bytes = [0; N];
        let offset = segment.file_offset.checked_add(address - segment.address)?;
        self.text.read_exact_at(offset, &mut bytes).ok()?;
        Some(bytes)
    }
}

/// What a walk does in a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    /// The tables say it all.
    Plain,
    /// The stack ends here.
    Top,
    /// The stack pointer may be another stack's; the frame pointer is this one's once it is set.
    Switch,
    /// The same, and it has no frame of its own: the frame pointer is its caller's, whose frame is passed over.
    SwitchOfCaller,
}

impl Behaviour {
    /// As `runtime.(*unwinder).resolveInternal` and `next` in `runtime/traceback.go` have it.
    fn of(record: &GoRecord, name: &str) -> Self {
        match name.strip_prefix("runtime.") {
            // These are left only by jumping elsewhere: nobody returns from what they call on the other stack. Go's own
            // profiles begin with them too. The last three are flagged from Go 1.17 on.
            Some("mcall" | "morestack" | "goexit" | "mstart" | "rt0_go") => Self::Top,
            // The first two call themselves the top, but the kernel's signal frame stands above. The last one sees to it that
            // both stacks can be unwound through its frame.
            Some("sigtramp" | "cgoSigtramp" | "cgocallback") => Self::Plain,
            // Have a frame from Go 1.21 on.
            Some("systemstack" | "asmcgocall") => Self::SwitchOfCaller,
            _ if record.frame.top => Self::Top,
            _ if record.frame.writes_sp => Self::Switch,
            _ => Self::Plain,
        }
    }
}

/// Where the function's frame pointer is, by what its first instructions do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Prologue {
    /// From where on the caller's is saved.
    saved: Option<u64>,
    /// From where on the register points there.
    set: Option<u64>,
}

impl Prologue {
    /// `at` is where the stack pointer has first moved, by `delta` bytes.
    fn read(code: &Code<'_>, at: u64, delta: i32) -> Self {
        let next = |at: u64, known: &[u8]| {
            let code = code.at::<PROLOGUE>(at).unwrap_or_default();
            code.starts_with(known).then(|| at + known.len() as u64)
        };
        if delta == 8 && code.at::<1>(at.wrapping_sub(1)) == Some([0x55]) {
            // mov %rsp,%rbp
            return Self { saved: Some(at), set: next(at, b"\x48\x89\xe5") };
        }
        // mov %rbp,N-8(%rsp) and lea N-8(%rsp),%rbp, with one byte for the distance or with four.
        let wide = delta.wrapping_sub(8).to_le_bytes();
        let step = |at: u64, opcode: u8| match i8::try_from(delta.wrapping_sub(8)) {
            Ok(narrow) => next(at, &[0x48, opcode, 0x6c, 0x24, narrow as u8]),
            Err(_) => next(at, &[[0x48, opcode, 0xac, 0x24], wide].concat()),
        };
        let saved = step(at, 0x89);
        Self { saved, set: saved.and_then(|saved| step(saved, 0x8d)) }
    }
}

/// The rows of `record`, called `name` if it is special: rules and from which address on each holds. `deltas` are not empty.
pub(super) fn rows_of(
    record: &GoRecord,
    name: &str,
    deltas: &[(Range<u64>, i32)],
    code: &Code<'_>,
) -> Vec<(u64, Rule)> {
    let behaviour = Behaviour::of(record, name);
    if behaviour == Behaviour::Top {
        return vec![(record.entry, END)];
    }
    let first = deltas.iter().find(|(_, delta)| *delta > 0);
    let prologue =
        first.map_or_else(Prologue::default, |(run, delta)| Prologue::read(code, run.start, *delta));
    if prologue.set.is_none() {
        match behaviour {
            Behaviour::Switch => return vec![(record.entry, SLOW)],
            Behaviour::SwitchOfCaller => return vec![(record.entry, BY_FRAME)],
            Behaviour::Plain | Behaviour::Top => {}
        }
    }
    let mut rows = Vec::new();
    for (index, (run, delta)) in deltas.iter().enumerate() {
        let next = deltas.get(index + 1).map_or(0, |next| next.1);
        match behaviour {
            Behaviour::Plain => plain_rows(&mut rows, run, *delta, prologue),
            _ => switch_rows(&mut rows, run, (*delta, next), prologue, code),
        }
    }
    rows
}

/// Rows where the stack pointer is what the tables say.
fn plain_rows(rows: &mut Vec<(u64, Rule)>, run: &Range<u64>, delta: i32, prologue: Prologue) {
    let Some(rule) = by_stack(delta) else {
        rows.push((run.start, SLOW));
        return;
    };
    if delta == 0 {
        rows.push((run.start, rule));
        return;
    }
    match prologue.saved {
        Some(saved) if saved < run.end => {
            if run.start < saved {
                rows.push((run.start, rule));
            }
            rows.push((saved.max(run.start), saved_by(rule)));
        }
        Some(_) => rows.push((run.start, rule)),
        // Assembly that does as it likes.
        None => rows.push((run.start, Rule { fp: fp::LOST, ..rule })),
    }
}

/// Rows of a function that switches stacks.
fn switch_rows(
    rows: &mut Vec<(u64, Rule)>,
    run: &Range<u64>,
    (delta, next): (i32, i32),
    prologue: Prologue,
    code: &Code<'_>,
) {
    let set = prologue.set.unwrap_or(u64::MAX);
    if delta <= 0 || set >= run.end {
        plain_rows(rows, run, delta, prologue);
        return;
    }
    if run.start < set {
        plain_rows(rows, &(run.start..set), delta, prologue);
    }
    rows.push((set.max(run.start), BY_FRAME));
    // Before Go 1.21 the frame pointer is the caller's again before the stack pointer is: one instruction, `add $N,%rsp`.
    let add = |len: u64| {
        let at = run.end.checked_sub(len).filter(|at| *at > set.max(run.start))?;
        let bytes = code.at::<3>(at)?;
        let known = if len == 4 { [0x48, 0x83, 0xc4] } else { [0x48, 0x81, 0xc4] };
        (bytes == known).then_some(at)
    };
    if let Some(at) = add(4).or_else(|| add(7)).filter(|_| next < delta)
        && let Some(rule) = by_stack(delta)
    {
        rows.push((at, saved_by(rule)));
    }
}

/// By the stack pointer; None when the rule cannot say it.
fn by_stack(delta: i32) -> Option<Rule> {
    let words = delta.checked_add(8).filter(|_| delta >= 0 && delta % 8 == 0)? / 8;
    Some(match i16::try_from(words) {
        Ok(cfa_offset) => Rule { kind: kind::SP, fp: fp::SAME, cfa_offset, fp_offset: 0, ra_offset: -1 },
        Err(_) => Rule::far(words, fp::SAME, 0),
    })
}

fn saved_by(rule: Rule) -> Rule {
    Rule { fp: SAVED.fp, fp_offset: SAVED.fp_offset, ..rule }
}
