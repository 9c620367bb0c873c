//! Which unit covers an address.

use std::collections::{BTreeSet, HashSet};

use gimli::{DebugInfoOffset, UnitType};

use super::DwarfLimits;
use super::refused::LinesRefused;
use super::root;
use super::section_reader::SectionReader;
use crate::symbol::elf::Segment;

/// Ranges collected before they are sorted and joined for the first time.
const FIRST_JOIN: usize = 1 << 14;
/// What may lie between two functions of a unit: alignment.
const PADDING: u64 = 64;
/// Ranges looked at before one that covers an address: units overlap seldom, and then by little.
const OVERLAPS: usize = 8;

/// The units of a file and what they cover: 8 bytes a unit, 16 bytes a range.
pub(super) struct UnitIndex {
    /// Where units begin and, at last, the section ends.
    offsets: Box<[u64]>,
    ranges: Box<[UnitRange]>,
}

#[derive(Clone, Copy)]
struct UnitRange {
    begin: u64,
    len: u32,
    unit: u32,
}

impl UnitRange {
    fn end(self) -> u64 {
        self.begin.saturating_add(u64::from(self.len))
    }
}

impl UnitIndex {
    /// Reads the headers of all units, and of each the ranges from `.debug_aranges` or, where that has none of it, from its root
    /// entry. What lies outside `segments`, the loaded code, was thrown away by the linker.
    pub(super) fn build<'a>(
        dwarf: &gimli::Dwarf<SectionReader>,
        segments: impl Iterator<Item = &'a Segment>,
        limits: &DwarfLimits,
    ) -> gimli::Result<Result<Self, LinesRefused>> {
        let code = segments.map(|segment| (segment.address, segment.address + segment.memory_size)).collect();
        let most = limits.index_bytes / size_of::<UnitRange>();
        let mut ranges = Ranges { code, found: Vec::new(), join_at: FIRST_JOIN.min(most), most, full: false };
        let (offsets, covering) = match units(dwarf, limits)? {
            Ok(units) => units,
            Err(refused) => return Ok(Err(refused)),
        };
        let known = add_aranges(dwarf, &offsets, &mut ranges)?;
        for unit in covering.into_iter().filter(|unit| !known.contains(unit)) {
            let offset = offsets.get(unit as usize).copied().unwrap_or_default();
            let whole = dwarf.unit_header(DebugInfoOffset(offset as usize)).and_then(|header| {
                root::for_each_range(dwarf, &header, |begin, end| ranges.add(begin, end, unit))
            });
            // A unit that cannot be read costs its own lines, not those of the whole file.
            if let Err(gimli::Error::Io) = whole {
                return Err(gimli::Error::Io);
            }
        }
        let Some(ranges) = ranges.finish() else { return Ok(Err(LinesRefused::ModuleTooLarge)) };
        Ok(Ok(Self { offsets, ranges }))
    }

    /// Reads the headers of all units, and nothing of what they cover.
    pub(super) fn of_units(
        dwarf: &gimli::Dwarf<SectionReader>,
        limits: &DwarfLimits,
    ) -> gimli::Result<Result<Self, LinesRefused>> {
        let units = units(dwarf, limits)?;
        Ok(units.map(|(offsets, _)| Self { offsets, ranges: Box::default() }))
    }

    /// The numbers of the units that cover `address`, the likeliest first.
    pub(super) fn covering(&self, address: u64) -> impl Iterator<Item = u32> {
        let end = self.ranges.partition_point(|range| range.begin <= address);
        let nearest = self.ranges.get(end.saturating_sub(OVERLAPS)..end).unwrap_or_default();
        nearest.iter().rev().filter(move |range| address < range.end()).map(|range| range.unit)
    }

    /// Begin and end in `.debug_info` of the unit with this number.
    pub(super) fn extent(&self, unit: u32) -> Option<(u64, u64)> {
        let unit = unit as usize;
        Some((*self.offsets.get(unit)?, *self.offsets.get(unit + 1)?))
    }

    /// Begins and ends of `units`, in their order.
    pub(super) fn extents(&self, units: &BTreeSet<u32>) -> Vec<(u64, u64)> {
        units.iter().filter_map(|unit| self.extent(*unit)).collect()
    }

    /// The number of the unit that the entry at `offset` in `.debug_info` belongs to.
    pub(super) fn unit_at(&self, offset: u64) -> Option<u32> {
        let unit = self.offsets.partition_point(|start| *start <= offset).checked_sub(1)?;
        (unit + 1 < self.offsets.len()).then_some(unit as u32)
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.offsets) + size_of_val(&*self.ranges)
    }
}

/// Where all units begin, and the numbers of those that may cover code.
type Units = (Box<[u64]>, Vec<u32>);

fn units(
    dwarf: &gimli::Dwarf<SectionReader>,
    limits: &DwarfLimits,
) -> gimli::Result<Result<Units, LinesRefused>> {
    let (mut offsets, mut covering) = (Vec::new(), Vec::new());
    let mut end = 0;
    let mut headers = dwarf.units();
    loop {
        let header = match headers.next() {
            Ok(Some(header)) => header,
            Err(gimli::Error::Io) => return Err(gimli::Error::Io),
            // What follows a malformed header cannot be found.
            Ok(None) | Err(_) => break,
        };
        let Some(DebugInfoOffset(offset)) = header.debug_info_offset() else { continue };
        if offsets.len() >= limits.units {
            return Ok(Err(LinesRefused::ModuleTooLarge));
        }
        end = offset as u64 + header.length_including_self() as u64;
        if matches!(header.type_(), UnitType::Compilation | UnitType::Skeleton(_)) {
            covering.push(offsets.len() as u32);
        }
        offsets.push(offset as u64);
    }
    offsets.push(end);
    Ok(Ok((offsets.into_boxed_slice(), covering)))
}

/// Adds what `.debug_aranges` says, and returns the units of which it says anything: compilers write it for whole units or not at
/// all. A malformed set ends it; root entries say the rest.
fn add_aranges(
    dwarf: &gimli::Dwarf<SectionReader>,
    offsets: &[u64],
    ranges: &mut Ranges,
) -> gimli::Result<HashSet<u32>> {
    let mut known = HashSet::new();
    let mut sets = dwarf.debug_aranges.headers();
    loop {
        let set = match sets.next() {
            Ok(Some(set)) => set,
            Err(gimli::Error::Io) => return Err(gimli::Error::Io),
            Ok(None) | Err(_) => return Ok(known),
        };
        let DebugInfoOffset(offset) = set.debug_info_offset();
        let Ok(unit) = offsets.binary_search(&(offset as u64)) else { continue };
        let mut entries = set.entries();
        loop {
            match entries.next() {
                Ok(Some(entry)) if entry.length() > 0 => {
                    let range = entry.range();
                    ranges.add(range.begin, range.end, unit as u32);
                    known.insert(unit as u32);
                }
                Ok(Some(_)) => {}
                Err(gimli::Error::Io) => return Err(gimli::Error::Io),
                Ok(None) | Err(_) => break,
            }
        }
    }
}

/// Ranges while they are collected.
struct Ranges {
    code: Vec<(u64, u64)>,
    found: Vec<UnitRange>,
    join_at: usize,
    most: usize,
    full: bool,
}

impl Ranges {
    /// Adds a range, while there is room.
    fn add(&mut self, begin: u64, end: u64, unit: u32) {
        let is_code = self.code.iter().any(|(start, stop)| begin < *stop && end > *start);
        let len = end.checked_sub(begin).and_then(|len| u32::try_from(len).ok());
        let Some(len) = len.filter(|len| is_code && *len > 0 && !self.full) else { return };
        self.found.push(UnitRange { begin, len, unit });
        if self.found.len() >= self.join_at {
            self.join();
            // If joining gains too little the next time comes too soon.
            self.full = self.found.len() > self.most / 8 * 7;
            self.join_at = (2 * self.found.len()).max(FIRST_JOIN).min(self.most);
        }
    }

    /// Makes one of neighbours of the same unit.
    fn join(&mut self) {
        self.found.sort_unstable_by_key(|range| (range.begin, range.unit, range.len));
        self.found.dedup_by(|next, range| {
            let joined = next.unit == range.unit && next.begin <= range.end().saturating_add(PADDING);
            let len = next.end().max(range.end()) - range.begin;
            match u32::try_from(len) {
                Ok(len) if joined => {
                    range.len = len;
                    true
                }
                _ => false,
            }
        });
    }

    /// None when there was no room.
    fn finish(mut self) -> Option<Box<[UnitRange]>> {
        self.join();
        (!self.full).then(|| self.found.into_boxed_slice())
    }
}
