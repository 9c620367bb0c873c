//! An index for files without a usable `.eh_frame_hdr`, made by reading the section from end to end.

use super::cfi::MAX_SEGMENTS;
use super::entry::{Entries, EntrySection, EntryStart, Extent};
use super::header::Function;
use super::{CfiError, CfiLimits};
use crate::symbol::elf::{ElfImage, Segment};
use crate::symbol::read_at::ReadAt;

/// Functions and their FDEs, 8 bytes each, sorted by address.
#[derive(Debug)]
pub(super) struct ScannedTable {
    /// Added to the first of a pair.
    text: u64,
    /// Added to the second of a pair.
    section: u64,
    pairs: Box<[(u32, u32)]>,
}

impl ScannedTable {
    /// Reads all entries of `extent`. Entries that are malformed, or that are no code's, are left out; a section
    /// whose lengths make no sense any more ends there.
    pub(super) fn scan(
        source: &dyn ReadAt,
        entries: &EntrySection,
        extent: Extent,
        image: &ElfImage,
        limits: &CfiLimits,
    ) -> Result<Self, CfiError> {
        if extent.size > limits.scan_bytes {
            let limit = limits.scan_bytes;
            return Err(CfiError::TooLarge { what: "a section without an index", bytes: extent.size, limit });
        }
        let code: Vec<_> = image.executable_segments().take(MAX_SEGMENTS).collect();
        let text = code.iter().map(|segment| segment.address).min().unwrap_or(0);
        let mut table = Self { text, section: extent.address, pairs: Box::default() };
        let mut pairs = Vec::new();
        let mut reader = Entries::new(source, entries, u64::MAX);
        let end = extent.address.saturating_add(extent.size);
        let mut address = extent.address;
        while address < end {
            let size = match reader.start_of(address) {
                Ok(EntryStart::Terminator) => 4,
                Ok(EntryStart::Wide { size } | EntryStart::Entry { size, cie: None }) => size,
                Ok(EntryStart::Entry { size, cie: Some(_) }) => {
                    let pair = table.pair(&mut reader, address, &code)?;
                    pairs.extend(pair);
                    size
                }
                Err(error @ CfiError::Read(_)) => return Err(error),
                Err(_) => break,
            };
            let bytes = (pairs.len() * size_of::<(u32, u32)>()) as u64;
            if bytes > limits.index_bytes as u64 {
                let limit = limits.index_bytes as u64;
                return Err(CfiError::TooLarge { what: "an index of functions", bytes, limit });
            }
            address = address.saturating_add(size);
        }
        pairs.sort_unstable();
        table.pairs = pairs.into_boxed_slice();
        Ok(table)
    }

    /// The pair for the FDE at `address`; None when it covers no code of this file: linkers leave entries of functions that
    /// they dropped, at address 0.
    fn pair(
        &self,
        reader: &mut Entries<'_>,
        address: u64,
        code: &[&Segment],
    ) -> Result<Option<(u32, u32)>, CfiError> {
        let fde = match reader.load_header(address) {
            Ok(fde) => fde,
            Err(error @ CfiError::Read(_)) => return Err(error),
            Err(_) => return Ok(None),
        };
        let start = fde.entry.initial_address();
        let is_code = code
            .iter()
            .any(|segment| start.checked_sub(segment.address).is_some_and(|into| into < segment.memory_size));
        if fde.entry.len() == 0 || !is_code {
            return Ok(None);
        }
        let relative = |address: u64, base: u64| u32::try_from(address.checked_sub(base)?).ok();
        Ok(relative(start, self.text).zip(relative(address, self.section)))
    }

    /// Functions in the table.
    pub(super) fn count(&self) -> usize {
        self.pairs.len()
    }

    /// As `HeaderTable::covering`.
    pub(super) fn covering(&self, from: u64, to: u64, most: usize) -> Vec<Function> {
        let function = |&(start, fde): &(u32, u32)| Function {
            start: self.text.saturating_add(u64::from(start)),
            fde: self.section.saturating_add(u64::from(fde)),
        };
        let first = self.pairs.partition_point(|pair| function(pair).start <= from).saturating_sub(1);
        let rest = self.pairs.get(first..).unwrap_or_default().iter().map(function);
        rest.take_while(|function| function.start < to).take(most).collect()
    }

    /// Heap bytes held.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.pairs)
    }
}
