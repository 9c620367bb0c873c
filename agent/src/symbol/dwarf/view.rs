//! `.debug_info` with all but a few units hidden.
//!
//! A reader of units hops from header to header by the lengths that they state. A run of hidden units is shown as the header of
//! one type unit (DWARF 5, §7.5.1.3) that is as long as all of them: [`addr2line`] skips type units, as they hold no code.
//! Everything else stays where it is, so that references by offset hold.

use std::sync::Arc;

use super::blocks::Block;

/// Bytes of a type unit's header in 32-bit DWARF: the least that can be hidden.
const HEADER: u64 = 24;
/// Longer runs, which no 32-bit length can state, stay visible; a file's units beyond are not reached then.
const MAX_GAP: u64 = 0xffff_ffef;

/// Which parts of a section are hidden.
#[derive(Debug)]
pub(super) struct View {
    gaps: Box<[Arc<Block>]>,
    end: u64,
}

impl View {
    /// Hides all but `visible`: ranges of whole units (start, end), in order, without overlap. What is hidden claims to have the
    /// `abbreviations` at that offset, so that it asks for no table that nobody else needs.
    pub(super) fn only(visible: &[(u64, u64)], abbreviations: u32) -> Self {
        let mut gaps = Vec::new();
        let mut end = 0;
        for &(start, stop) in visible {
            let mut at = end;
            while start - at >= HEADER {
                // What would be left must be long enough for a header too.
                let len = match start - at {
                    len if len <= MAX_GAP => len,
                    _ => MAX_GAP - HEADER,
                };
                gaps.push(Arc::new(Block { start: at, bytes: type_unit(len, abbreviations).into() }));
                at += len;
            }
            end = stop;
        }
        Self { gaps: gaps.into_boxed_slice(), end }
    }

    /// Where the last visible unit ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The header that is shown at `at` instead of what is there.
    pub(super) fn hidden(&self, at: u64) -> Option<Arc<Block>> {
        let index = self.gaps.partition_point(|gap| gap.start <= at).checked_sub(1)?;
        let gap = self.gaps.get(index)?;
        (at - gap.start < HEADER).then(|| gap.clone())
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.gaps.len()
            * (size_of::<Arc<Block>>() + size_of::<Block>() + HEADER as usize + 4 * size_of::<usize>())
    }
}

/// The header of a type unit that takes `len` bytes with its header.
fn type_unit(len: u64, abbreviations: u32) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    let length = (len - 4) as u32;
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..6].copy_from_slice(&5u16.to_le_bytes());
    header[6] = gimli::DW_UT_type.0;
    header[7] = 8;
    header[8..12].copy_from_slice(&abbreviations.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Units before, between and behind the visible ones are hidden; a gap too short for a header is left as it is.
    #[test]
    fn gaps_are_hidden() {
        let view = View::only(&[(100, 150), (170, 200), (200, 210), (300, 400)], 0);
        let gaps: Vec<_> = view.gaps.iter().map(|gap| gap.start).collect();
        assert_eq!(gaps, [0, 210]);
        assert_eq!(view.end(), 400);
        for (at, hidden) in [(0, true), (23, true), (24, false), (160, false), (210, true), (300, false)] {
            assert_eq!(view.hidden(at).is_some(), hidden, "{at}");
        }
        assert_eq!(view.gaps[1].bytes[..8], [86, 0, 0, 0, 5, 0, 2, 8]);
    }

    /// More than 4 GiB are hidden by several headers that lead to the right place.
    #[test]
    fn long_gaps_are_hidden() {
        let view = View::only(&[(9 << 30, (9 << 30) + 100)], 0);
        let mut at = 0;
        while let Some(block) = view.hidden(at) {
            let &[a, b, c, d, ..] = &*block.bytes else { panic!("a short header") };
            at += 4 + u64::from(u32::from_le_bytes([a, b, c, d]));
        }
        assert_eq!(at, 9 << 30);
    }
}
