//! Rows of Go functions, from Go's own tables: how far the stack pointer has moved, exactly, for every instruction, in every Go
//! program, stripped or not. It is what Go's runtime unwinds by itself (`runtime/traceback.go`).
//!
//! A Go program's `.debug_frame` is made from the same tables by Go's linker and says less, nothing of the frame pointer.
//! So these come first, and CFI only where they say nothing: in C code.

use std::ops::Range;

use agent_ebpf::rule::{Rule, TEXT_PAGE, kind};

use super::go_frame::{Code, rows_of};
use super::page::{Page, Part, parts};
use super::{Architecture, CfiError};
use crate::symbol::elf::ElfImage;
use crate::symbol::gopclntab::{GoReader, GoTable, GoTableError};
use crate::symbol::read_at::ReadAt;

/// Between functions that are further apart than this lies code of others. Go aligns functions to 32 bytes.
const PADDING: u64 = 64;

/// A change: from this offset in the page on a rule holds, or what holds without Go's tables.
type Change = (u64, Option<Rule>);

/// Replaces the rows of Go functions in `page`, the page `file_page` of the file `text` with headers `image` and Go tables `go`. A
/// function whose tables are malformed is counted and keeps the rows it had.
///
/// # Errors
/// When `text` cannot be read.
pub fn add_go_rows(
    text: &dyn ReadAt,
    image: &ElfImage,
    go: &GoTable,
    file_page: u64,
    page: &mut Page,
) -> Result<(), CfiError> {
    if Architecture::of(image.machine()) != Some(Architecture::X86_64) {
        return Ok(());
    }
    let start = file_page.checked_mul(TEXT_PAGE).ok_or(CfiError::Malformed("no file is that long"))?;
    for part in parts(image, start) {
        let mut adder = Adder {
            reader: go.reader(text),
            code: Code::new(text, image, &part)?,
            part: &part,
            changes: Vec::new(),
        };
        match adder.add() {
            Ok(bad) => page.stats.bad_fdes += bad,
            Err(GoTableError::Read(error)) => return Err(error.into()),
            Err(_) => page.stats.bad_fdes += 1,
        }
        let end = part.offset + (part.addresses.end - part.addresses.start);
        adder.changes.push((end, None));
        page.rows = overlay(&page.rows, &adder.changes);
    }
    page.stats.slow_rows = page.rows.iter().filter(|(_, rule)| rule.kind == kind::SLOW).count() as u32;
    Ok(())
}

struct Adder<'a> {
    reader: GoReader<'a>,
    code: Code<'a>,
    part: &'a Part,
    changes: Vec<Change>,
}

impl Adder<'_> {
    /// Notes the changes for all functions of the part; how many of them are malformed.
    fn add(&mut self) -> Result<u32, GoTableError> {
        let addresses = self.part.addresses.clone();
        // One byte more: a trampoline that begins right behind has its row begin here.
        let records = self
            .reader
            .records_in(addresses.start..addresses.end.saturating_add(1), TEXT_PAGE as usize + 1)?;
        let mut bad = 0;
        for record in records {
            let name = if record.frame.special { self.reader.name(&record) } else { Ok(String::new()) };
            let deltas = name.and_then(|name| Ok((name, self.reader.stack_deltas(&record)?)));
            match deltas {
                Ok((name, _)) if name.starts_with("runtime.sigreturn") => {
                    // What a handler returns to is known by its code; it is looked up one byte before.
                    self.change(record.entry.saturating_sub(1), None);
                }
                Ok((_, deltas)) if deltas.is_empty() => self.change(record.entry, None),
                Ok((name, deltas)) => {
                    for (address, rule) in rows_of(&record, &name, &deltas, &self.code) {
                        self.change(address, Some(rule));
                    }
                    let end = deltas.last().map_or(record.entry, |(run, _)| run.end);
                    if record.end - end >= PADDING {
                        self.change(end, None);
                    }
                }
                Err(GoTableError::Read(error)) => return Err(error.into()),
                Err(_) => {
                    bad += 1;
                    self.change(record.entry, None);
                }
            }
        }
        // Behind the last function.
        if let Some(end) =
            self.reader.records_in(addresses, TEXT_PAGE as usize + 1)?.last().map(|last| last.end)
        {
            self.change(end, None);
        }
        Ok(bad)
    }

    fn change(&mut self, address: u64, rule: Option<Rule>) {
        let Range { start, end } = self.part.addresses;
        if address >= end {
            return;
        }
        let offset = self.part.offset + address.saturating_sub(start);
        // The last word counts: of what came before the part, and of a byte that two functions claim.
        while self.changes.last().is_some_and(|last| last.0 >= offset) {
            self.changes.pop();
        }
        self.changes.push((offset, rule));
    }
}

/// `rows` with `changes`, both sorted.
fn overlay(rows: &[(u16, Rule)], changes: &[Change]) -> Vec<(u16, Rule)> {
    let mut merged: Vec<(u16, Rule)> = Vec::with_capacity(rows.len() + changes.len());
    let (mut row, mut change) = (rows.iter().peekable(), changes.iter().peekable());
    let (mut base, mut patch) = (Rule::default(), None);
    loop {
        let next_row = row.peek().map(|row| u64::from(row.0));
        let next_change = change.peek().map(|change| change.0);
        let Some(offset) = next_row.into_iter().chain(next_change).min() else { return merged };
        if next_row == Some(offset)
            && let Some((_, rule)) = row.next()
        {
            base = *rule;
        }
        if next_change == Some(offset)
            && let Some((_, rule)) = change.next()
        {
            patch = *rule;
        }
        let rule = patch.unwrap_or(base);
        if let Ok(offset) = u16::try_from(offset)
            && offset < TEXT_PAGE as u16
            && merged.last().is_none_or(|last| last.1 != rule)
        {
            merged.push((offset, rule));
        }
    }
}
