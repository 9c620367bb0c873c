//! The rows of one text page: from the FDEs that cover it, and from nothing else.

use std::ops::Range;

use agent_ebpf::rule::{Rule, TEXT_PAGE, kind};
use gimli::UnwindContext;

use super::CfiError;
use super::cfi::{CfiIndex, MAX_SEGMENTS};
use super::entry::{Entries, Fde};
use super::registers::Architecture;
use super::translate::rule_of;
use crate::symbol::elf::ElfImage;
use crate::symbol::read_at::ReadAt;

/// Most bytes of FDEs and CIEs that are run for a page. A page of small functions takes 10 KiB; one in the middle of a huge
/// function takes what that function has.
const PAGE_BUDGET: u64 = 2 << 20;
/// A gap between functions that is shorter is padding for the next one's alignment: no program counter is ever there,
/// so it gets no row.
const PADDING: u64 = 16;

/// The rows of one text page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// (offset in the page in bytes, rule that holds from there on), sorted by offset without equal neighbours. Begins at
    /// offset 0 unless empty, which it is when no executable segment has bytes of the page. Code without CFI has
    /// [`kind::NONE`].
    pub rows: Vec<(u16, Rule)>,
    /// How it went.
    pub stats: PageStats,
}

/// Counts of one page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageStats {
    /// FDEs that cover some of the page.
    pub fdes: u32,
    /// FDEs of them that are malformed: what they cover has [`kind::NONE`].
    pub bad_fdes: u32,
    /// Rows with [`kind::SLOW`].
    pub slow_rows: u32,
}

/// Builds the rows for bytes `file_page * TEXT_PAGE..` of the file that is mapped. `image` has its headers; `source` is
/// the file that `index` was opened with, which may be a separate debug file instead.
///
/// # Errors
/// When `source` cannot be read, or the index of FDEs is malformed. A malformed FDE is counted and costs only what it covers.
pub fn build_page(
    source: &dyn ReadAt,
    index: &CfiIndex,
    image: &ElfImage,
    file_page: u64,
) -> Result<Page, CfiError> {
    let start = file_page.checked_mul(TEXT_PAGE).ok_or(CfiError::Malformed("no file is that long"))?;
    let mut builder = Builder {
        architecture: index.architecture(),
        entries: index.entries(source, PAGE_BUDGET),
        context: UnwindContext::new(),
        rows: Rows::default(),
        stats: PageStats::default(),
    };
    for part in parts(image, start) {
        // At most one function a byte, and what precedes the first.
        let functions =
            index.covering(source, part.addresses.start, part.addresses.end, TEXT_PAGE as usize + 1)?;
        builder.rows.move_to(&part);
        for (position, function) in functions.iter().enumerate() {
            let next = functions.get(position + 1).map_or(part.addresses.end, |next| next.start);
            builder.add(function.start..next.min(part.addresses.end), function.fde)?;
        }
        builder.rows.end();
    }
    let rows = builder.rows.list;
    let mut stats = builder.stats;
    stats.slow_rows = rows.iter().filter(|(_, rule)| rule.kind == kind::SLOW).count() as u32;
    Ok(Page { rows, stats })
}

/// What one segment has of the page.
pub(super) struct Part {
    /// Offset in the page of the first byte.
    pub(super) offset: u64,
    pub(super) addresses: Range<u64>,
}

/// The parts of the page at file offset `start` by the executable segments' bytes, sorted. Where segments share bytes the first
/// has them.
pub(super) fn parts(image: &ElfImage, start: u64) -> Vec<Part> {
    let end = start.saturating_add(TEXT_PAGE);
    let mut ranges: Vec<_> = image
        .executable_segments()
        .take(MAX_SEGMENTS)
        .map(|segment| {
            let segment_end = segment.file_offset.saturating_add(segment.file_size);
            (segment.file_offset.max(start), segment_end.min(end), segment)
        })
        .filter(|(from, to, _)| from < to)
        .collect();
    ranges.sort_by_key(|&(from, _, _)| from);
    let mut parts = Vec::new();
    let mut done = start;
    for (from, to, segment) in ranges {
        let from = from.max(done);
        let address = segment.address.checked_add(from.saturating_sub(segment.file_offset));
        let addresses =
            address.and_then(|address| Some(address..address.checked_add(to.checked_sub(from)?)?));
        if let Some(addresses) = addresses.filter(|addresses| !addresses.is_empty()) {
            parts.push(Part { offset: from - start, addresses });
            done = to;
        }
    }
    parts
}

struct Builder<'a> {
    architecture: Architecture,
    entries: Entries<'a>,
    context: UnwindContext<usize>,
    rows: Rows,
    stats: PageStats,
}

impl Builder<'_> {
    /// Adds the rows of the FDE at `address` as far as they lie in `range`, where the index says that its function is.
    fn add(&mut self, range: Range<u64>, address: u64) -> Result<(), CfiError> {
        if range.is_empty() {
            return Ok(());
        }
        let from = self.rows.base.0;
        let loaded = self.entries.load(address);
        let run = loaded.and_then(|fde| rows_of(self.architecture, &mut self.context, &fde, &range, from));
        match run {
            Ok((_, end)) if end <= self.rows.covered => {}
            Ok((rows, end)) => {
                self.stats.fdes += 1;
                self.rows.skip_to(range.start);
                for (address, rule) in rows {
                    self.rows.push(address, rule);
                }
                self.rows.covered = end;
            }
            Err(CfiError::Read(error)) => return Err(CfiError::Read(error)),
            Err(_) => {
                self.stats.fdes += 1;
                self.stats.bad_fdes += 1;
                self.rows.bad(range.start);
            }
        }
        Ok(())
    }
}

/// Runs an FDE: where each rule begins, clipped to `range` and to what follows `from`, and where the last one ends.
fn rows_of(
    architecture: Architecture,
    context: &mut UnwindContext<usize>,
    fde: &Fde<'_>,
    range: &Range<u64>,
    from: u64,
) -> Result<(Vec<(u64, Rule)>, u64), CfiError> {
    if fde.entry.initial_address() != range.start {
        return Err(CfiError::Malformed("an FDE is not for the code that the index says"));
    }
    let function_end = range.start.checked_add(fde.entry.len());
    let end = function_end.ok_or(CfiError::Malformed("an FDE's range wraps around"))?.min(range.end);
    let mut found: Vec<(u64, Rule)> = Vec::new();
    let mut table = fde.entry.rows(&fde.section, &fde.bases, context)?;
    while let Some(row) = table.next_row()? {
        if row.end_address() <= from || row.start_address() >= end {
            // Run on: what follows may be malformed, and then nothing of the FDE is trusted.
            continue;
        }
        let start = row.start_address().max(from);
        let rule = rule_of(architecture, fde, row);
        match found.last_mut() {
            Some(last) if last.0 == start => last.1 = rule,
            _ => found.push((start, rule)),
        }
    }
    Ok((found, end))
}

/// Rows as they are put together, in the order of addresses.
#[derive(Default)]
struct Rows {
    list: Vec<(u16, Rule)>,
    /// Where the part begins: its address, and its offset in the page.
    base: (u64, u64),
    /// The part's end.
    end: u64,
    /// Address up to which rows hold.
    covered: u64,
}

impl Rows {
    fn move_to(&mut self, part: &Part) {
        if part.offset > 0 && self.list.is_empty() {
            self.list.push((0, Rule::default()));
        }
        self.base = (part.addresses.start, part.offset);
        self.end = part.addresses.end;
        self.covered = part.addresses.start;
        // What precedes the first function has no rule. Replaced when it begins here.
        self.push(part.addresses.start, Rule::default());
    }

    /// From `address` on `rule` holds.
    fn push(&mut self, address: u64, rule: Rule) {
        let (start, offset) = self.base;
        let Ok(offset) = u16::try_from(address.saturating_sub(start) + offset) else { return };
        if self.list.last().is_some_and(|last| last.0 == offset) {
            self.list.pop();
        }
        if self.list.last().is_none_or(|last| last.1 != rule) {
            self.list.push((offset, rule));
        }
    }

    /// A function begins at `address`: what lies between has no rule, unless it is padding.
    fn skip_to(&mut self, address: u64) {
        if address.saturating_sub(self.covered) >= PADDING {
            self.push(self.covered, Rule::default());
        }
    }

    /// From `address` on nothing is known.
    fn bad(&mut self, address: u64) {
        self.push(address.max(self.covered), Rule::default());
        self.covered = self.covered.max(address);
    }

    /// The part is over.
    fn end(&mut self) {
        self.skip_to(self.end);
    }
}
