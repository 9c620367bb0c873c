//! One unit's functions and lines, parsed by [`addr2line`] as far as they were asked for.

use std::collections::HashSet;
use std::sync::Arc;

use addr2line::{Context, LookupContinuation as _, LookupResult};
use gimli::{DebugAbbrevOffset, DebugInfoOffset, SectionId, UnitHeader};

use super::DwarfLimits;
use super::debug_lines::SourceLine;
use super::references;
use super::refused::LinesRefused;
use super::section::{FileSlot, Section};
use super::section_reader::SectionReader;
use super::sections::DebugSections;
use super::split::{SplitUnit, SplitUnits};
use super::unit_index::UnitIndex;
use super::unit_scan::{self, UnitCost};
use super::view::View;

/// Frames of a chain that are kept.
const MAX_CHAIN: usize = 256;
/// Bytes of a name that are kept, as of a symbol.
const MAX_NAME: usize = 64 << 10;

/// A context that knows one unit, and the roots of those that it refers to.
pub(super) struct UnitLines {
    context: Context<SectionReader>,
    split: Option<SplitUnit>,
    split_refused: Option<LinesRefused>,
    files: HashSet<Arc<str>>,
    costs: Vec<UnitCost>,
    bytes: usize,
    look_ups: usize,
}

impl UnitLines {
    /// Reads what there is to unit number `unit`, which may take `most` bytes.
    pub(super) fn open(
        sections: &DebugSections,
        index: &UnitIndex,
        unit: u32,
        limits: &DwarfLimits,
        most: usize,
    ) -> Result<Self, LinesRefused> {
        let refused = |error| sections.file.refused(error);
        let dwarf = sections.dwarf().map_err(refused)?;
        let start = |unit| index.extent(unit).map(|(start, _)| start);
        let header = unit_header(&dwarf, start(unit)).map_err(refused)?;
        let (main, mut main_cost) = unit_scan::root(&dwarf, &sections.file, header, limits)?;
        unit_scan::whole(&dwarf, &sections.file, &main, &mut main_cost, most)?;
        let mut referred = references::units(sections, &dwarf, index, &main_cost.references, most)?;
        main_cost.references = Vec::new();
        referred.main.remove(&unit);
        let mut roots =
            Roots { tables: HashSet::new(), bytes: 0, most: most.saturating_sub(main_cost.heap_bytes(1)) };
        roots.tables.insert(main.header.debug_abbrev_offset());
        roots.add(&dwarf, &sections.file, referred.main.iter().map(|unit| start(*unit)), limits)?;
        referred.main.insert(unit);
        let info = Section::view(
            sections.section(SectionId::DebugInfo),
            View::only(&index.extents(&referred.main), main.header.debug_abbrev_offset().0 as u32),
        );
        let mut bytes = info.heap_bytes() + size_of::<Self>();
        let mut seen = sections.dwarf_with(&Arc::new(info)).map_err(refused)?;
        // Units that were optimised together share a table.
        seen.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
        if let Some((supplement, dwarf)) = sections.supplement().zip(dwarf.sup()) {
            roots.tables.clear();
            let units = referred.supplement.iter().map(|unit| supplement.units.extent(*unit));
            let starts = units.map(|extent| extent.map(|(start, _)| start));
            roots.add(dwarf, &supplement.sections.file, starts, limits)?;
            let (info, dwarf) = supplement.with_units(&referred.supplement).map_err(refused)?;
            bytes += info;
            seen.set_sup(dwarf);
        }
        bytes += roots.bytes;
        let context = Context::from_dwarf(seen).map_err(refused)?;
        let costs = vec![main_cost];
        Ok(Self {
            context,
            split: None,
            split_refused: None,
            files: HashSet::new(),
            costs,
            bytes,
            look_ups: 0,
        })
    }

    /// What stands at `address`, innermost first.
    ///
    /// # Errors
    /// [`LinesRefused::NotCovered`] when neither a function nor a line covers it.
    pub(super) fn lines(
        &mut self,
        file: &FileSlot,
        address: u64,
        splits: &mut SplitUnits<'_>,
        most: usize,
    ) -> Result<Vec<SourceLine>, LinesRefused> {
        if let Some(split) = &self.split {
            splits.reopen(split)?;
        }
        self.look_ups += 1;
        let mut result = self.context.find_frames(address);
        let frames = loop {
            match result {
                LookupResult::Output(frames) => break frames,
                LookupResult::Load { load, continuation } => {
                    let dwarf = match splits.load(&load, most) {
                        Ok((dwarf, split, cost)) => {
                            self.costs.push(cost);
                            self.bytes += split.heap_bytes();
                            self.split = Some(split);
                            Some(dwarf)
                        }
                        Err(cause) => {
                            self.split_refused = Some(cause);
                            None
                        }
                    };
                    result = continuation.resume(dwarf);
                }
            }
        };
        let refused = |error| match &self.split {
            Some(split) => split.refused(file, error),
            None => file.refused(error),
        };
        let mut frames = frames.map_err(refused)?;
        let mut lines = Vec::new();
        while let Some(frame) = frames.next().map_err(refused)? {
            let function = match frame.function {
                Some(function) => Some(function.raw_name().map_err(refused)?.into_owned()),
                None => None,
            };
            let location = frame.location;
            let path = location.as_ref().and_then(|location| location.file);
            let line = location.as_ref().and_then(|location| location.line).unwrap_or(0);
            let column = location.as_ref().and_then(|location| location.column).unwrap_or(0);
            let file = path.filter(|path| !path.is_empty()).map(|path| share(&mut self.files, path));
            let function = function.filter(|name| !name.is_empty() && name.len() <= MAX_NAME);
            lines.push(SourceLine { function, file, line, column });
            if lines.len() > MAX_CHAIN {
                return Err(LinesRefused::UnitTooLarge);
            }
        }
        match self.split_refused {
            Some(cause) if lines.is_empty() => Err(cause),
            _ if lines.is_empty() => Err(LinesRefused::NotCovered),
            _ => Ok(lines),
        }
    }

    /// Why the functions of this unit are not known though their lines are.
    pub(super) fn split_refused(&self) -> Option<LinesRefused> {
        self.split_refused
    }

    /// Heap bytes, an estimate from above.
    pub(super) fn heap_bytes(&self) -> usize {
        let paths: usize = self.files.iter().map(|path| path.len() + 4 * size_of::<usize>()).sum();
        let units: usize = self.costs.iter().map(|cost| cost.heap_bytes(self.look_ups)).sum();
        self.bytes + units + paths
    }
}

/// What the roots of units take that are only referred to.
struct Roots {
    /// Abbreviations that are there already: many units share a table.
    tables: HashSet<DebugAbbrevOffset>,
    bytes: usize,
    most: usize,
}

impl Roots {
    /// Adds the units that begin at `starts`.
    fn add(
        &mut self,
        dwarf: &gimli::Dwarf<SectionReader>,
        file: &FileSlot,
        starts: impl Iterator<Item = Option<u64>>,
        limits: &DwarfLimits,
    ) -> Result<(), LinesRefused> {
        for start in starts {
            let header = unit_header(dwarf, start).map_err(|error| file.refused(error))?;
            let table = header.debug_abbrev_offset();
            let (_, mut cost) = unit_scan::root(dwarf, file, header, limits)?;
            if !self.tables.insert(table) {
                cost.share_abbreviations();
            }
            self.bytes += cost.root_bytes();
            if self.bytes > self.most {
                return Err(LinesRefused::UnitTooLarge);
            }
        }
        Ok(())
    }
}

fn unit_header(
    dwarf: &gimli::Dwarf<SectionReader>,
    start: Option<u64>,
) -> gimli::Result<UnitHeader<SectionReader>> {
    // Units are those of an index.
    let start = start.ok_or(gimli::Error::MissingUnitDie)?;
    dwarf.unit_header(DebugInfoOffset(start as usize))
}

/// `path`, once for all frames that are in that file.
fn share(files: &mut HashSet<Arc<str>>, path: &str) -> Arc<str> {
    if let Some(known) = files.get(path) {
        return known.clone();
    }
    let path: Arc<str> = path.into();
    files.insert(path.clone());
    path
}
