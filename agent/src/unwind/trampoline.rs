//! Code without CFI that is known by its bytes: signal trampolines (musl's, Go's), without which a stack ends where a signal
//! hit, and the beginnings of musl's programs and threads, without which a whole stack does not look whole.

use agent_ebpf::rule::{Rule, TEXT_PAGE, kind};

use super::call_site::{
    MUSL_START, MUSL_THREAD_START, is_musl_start, is_musl_thread_start, is_signal_trampoline, may_be_known,
};
use super::page::Page;
use super::{Architecture, CfiError};
use crate::symbol::elf::ElfImage;
use crate::symbol::read_at::ReadAt;

/// Bytes of the longest trampoline.
const TRAMPOLINE: u64 = 9;
/// Bytes of the longest known code.
const LONGEST: u64 = MUSL_START as u64;
/// Executable segments whose bytes are searched; a page has one or two.
const MAX_PARTS: usize = 4;

/// Adds rows for known code to `page`, the page `file_page` of the file `text` with headers `image`, where it has no rules. A
/// handler returns to the trampoline's first byte, which is looked up one byte before: so the row begins there.
///
/// # Errors
/// When `text` cannot be read.
pub fn add_known_code(
    text: &dyn ReadAt,
    image: &ElfImage,
    file_page: u64,
    page: &mut Page,
) -> Result<(), CfiError> {
    if Architecture::of(image.machine()) != Some(Architecture::X86_64) || !page.has_gap() {
        return Ok(());
    }
    let start = file_page.checked_mul(TEXT_PAGE).ok_or(CfiError::Malformed("no file is that long"))?;
    for segment in image.executable_segments().filter(|segment| segment.file_size > 0).take(MAX_PARTS) {
        // A trampoline that begins right after the page begins with its last byte.
        let segment_end = segment.file_offset.saturating_add(segment.file_size).min(text.len());
        let from = start.saturating_sub(LONGEST).max(segment.file_offset);
        let to = start.saturating_add(TEXT_PAGE + LONGEST).min(segment_end);
        let Some(len) = to.checked_sub(from).filter(|&len| len > 0) else { continue };
        let mut code = vec![0; len as usize];
        text.read_exact_at(from, &mut code)?;
        for at in 0..code.len() {
            let Some(rest) = code.get(at..).filter(|rest| may_be_known(rest)) else { continue };
            let begin = from + at as u64;
            if is_signal_trampoline(rest) {
                mark(page, start, begin.saturating_sub(1)..begin + TRAMPOLINE, kind::SIGNAL);
            } else if is_musl_start(rest) {
                mark(page, start, begin..begin + LONGEST, kind::END);
            } else if is_musl_thread_start(rest) {
                mark(page, start, begin..begin + MUSL_THREAD_START as u64, kind::END);
            }
        }
    }
    // Trampolines may follow each other at once.
    page.rows.dedup_by_key(|row| row.1);
    Ok(())
}

/// Gives the part of `range`, in file offsets, that lies in the page from `start` on a rule of this kind, if it had none.
fn mark(page: &mut Page, start: u64, range: std::ops::Range<u64>, to_be: u8) {
    let clip = |offset: u64| offset.saturating_sub(start).min(TEXT_PAGE);
    let (from, to) = (clip(range.start), clip(range.end));
    let position = page.rows.partition_point(|row| u64::from(row.0) <= from);
    let Some(before) = position.checked_sub(1).and_then(|before| page.rows.get(before)) else { return };
    let free_until = page.rows.get(position).map_or(TEXT_PAGE, |next| u64::from(next.0));
    if from >= to || before.1.kind != kind::NONE || free_until < to {
        return;
    }
    let known = (from as u16, Rule { kind: to_be, ..Rule::default() });
    let none = (to as u16, Rule::default());
    // Both are in the middle of a stretch of NONE, or at its borders, where a row would repeat what stands there.
    let replaced = if u64::from(before.0) == from { position - 1 } else { position };
    let after = (to < free_until).then_some(none);
    page.rows.splice(replaced..position, [known].into_iter().chain(after));
}
