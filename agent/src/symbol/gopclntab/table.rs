//! The tables of one file, opened: which function covers an address.

use std::ops::Range;
use std::sync::OnceLock;

use super::function::GoRecord;
use super::header::{Extent, HEADER_BYTES, Header, Layout};
use super::module_data::ModuleData;
use super::pc_values::PcValues;
use super::reader::Reader;
use super::{GoLimits, GoTableError, find};
use crate::symbol::elf::ElfImage;
use crate::symbol::read_at::ReadAt;

/// Bytes read at once where the next read is likely to be elsewhere.
const SMALL: usize = 256;
/// Bytes read at once where the next read is likely to be close by.
const LARGE: usize = 4096;

/// Runs that a function's stack pointer may have. Real ones have a few for each return and each call of assembly.
const MAX_RUNS: usize = 1 << 16;

/// A function of a Go program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoFunction {
    /// Link-time address of its first byte.
    pub entry: u64,
    /// Where the next function begins.
    pub end: u64,
    /// Its name as Go's own tools show it: `net/http.(*conn).serve`.
    pub name: String,
}

/// The Go tables of one ELF file: where they lie. Holds none of their bytes.
#[derive(Debug)]
pub struct GoTable {
    pub(super) extent: Extent,
    pub(super) header: Header,
    /// What distances of functions count from.
    text: u64,
    limits: GoLimits,
    /// Address that offsets of functions' further tables count from, once it was asked for.
    func_data_base: OnceLock<Option<u64>>,
}

impl GoTable {
    /// Finds the tables of `source`, whose headers are `image`: by the section's name; in a file without sections by their magic
    /// number. None in a file that is not of Go's making.
    ///
    /// # Errors
    /// [`GoTableError::Unsupported`] for tables of before Go 1.16 and where the text's address cannot be found, which Go 1.26 and
    /// later keep elsewhere; [`GoTableError::Malformed`] for a header that contradicts itself.
    pub fn open(
        source: &dyn ReadAt,
        image: &ElfImage,
        limits: &GoLimits,
    ) -> Result<Option<Self>, GoTableError> {
        let Some(mut extent) = find::find(source, image, limits)? else { return Ok(None) };
        extent.size = extent.size.min(source.len().saturating_sub(extent.file_offset));
        let mut reader = Reader::new(source, "the header", HEADER_BYTES, 2 * HEADER_BYTES as u64);
        let header = Header::read(&mut reader, extent)?;
        let mut text = header.text;
        let func_data_base = OnceLock::new();
        if text == 0 && header.layout != Layout::Go116 {
            let found = ModuleData::find(source, image, extent, &header, limits)?;
            let found = found.ok_or(GoTableError::Unsupported("nothing says where the text begins"))?;
            text = found.text;
            func_data_base.get_or_init(|| found.func_data);
        }
        let table = Self { extent, header, text, limits: *limits, func_data_base };
        // Position independent programs of before Go 1.18 have addresses that only the loader fills in.
        if table.text_range(source)?.is_empty() {
            return Err(GoTableError::Unsupported("functions have no addresses"));
        }
        Ok(Some(table))
    }

    /// Addresses from the first function's to where the last one ends.
    ///
    /// # Errors
    /// When `source`, the file that this was opened with, cannot be read.
    pub fn text_range(&self, source: &dyn ReadAt) -> Result<Range<u64>, GoTableError> {
        let mut functab = self.part(source, "the table of functions", SMALL);
        Ok(self.entry(&mut functab, 0)?..self.entry(&mut functab, self.header.functions)?)
    }

    /// Number of functions.
    pub fn len(&self) -> u64 {
        self.header.functions
    }

    /// Whether there is no function: never.
    pub fn is_empty(&self) -> bool {
        self.header.functions == 0
    }

    /// The function that covers the link-time `address`. `source` is the file that this was opened with.
    ///
    /// # Errors
    /// When the file cannot be read, or what leads to the function or its name lies outside the tables.
    pub fn function_at(&self, source: &dyn ReadAt, address: u64) -> Result<Option<GoFunction>, GoTableError> {
        let Some(record) = self.record_at(source, address)? else { return Ok(None) };
        let name = self.name_at(&mut self.part(source, "the names", SMALL), record.name)?;
        Ok(Some(GoFunction { entry: record.entry, end: record.end, name }))
    }

    /// A reader of many functions, which reads no more in all than for one look-up. `source` is the file that this was opened with.
    pub fn reader<'a>(&'a self, source: &'a dyn ReadAt) -> GoReader<'a> {
        GoReader {
            table: self,
            functab: self.part(source, "the table of functions", LARGE),
            records: self.part(source, "the functions", LARGE),
            values: self.part(source, "functions' tables", SMALL),
            names: self.part(source, "the names", SMALL),
        }
    }

    pub(super) fn record_at(
        &self,
        source: &dyn ReadAt,
        address: u64,
    ) -> Result<Option<GoRecord>, GoTableError> {
        let mut functab = self.part(source, "the table of functions", SMALL);
        let Some(index) = self.index_of(&mut functab, address)? else { return Ok(None) };
        let mut records = self.part(source, "the functions", SMALL);
        let record = self.record(&mut functab, &mut records, index)?;
        // Not so when the table is not sorted.
        Ok((record.entry..record.end).contains(&address).then_some(record))
    }

    /// The pc-value table at `offset` of its kind.
    pub(super) fn pc_values<'r, 'a>(
        &self,
        reader: &'r mut Reader<'a>,
        record: &GoRecord,
        offset: u32,
    ) -> PcValues<'r, 'a> {
        let at = self.offset(self.header.pc_values, u64::from(offset));
        PcValues::new(reader, at, record.entry, self.header.quantum)
    }

    pub(super) fn name_at(&self, reader: &mut Reader<'_>, name: u32) -> Result<String, GoTableError> {
        self.string(reader, self.header.names, u64::from(name))
    }

    /// A string of the part of the tables at `part`.
    pub(super) fn string(
        &self,
        reader: &mut Reader<'_>,
        part: u64,
        offset: u64,
    ) -> Result<String, GoTableError> {
        reader.string(self.offset(part, offset), self.extent.file_offset.saturating_add(self.extent.size))
    }

    /// File offset of what lies `offset` bytes into the part of the tables at `part`.
    pub(super) fn offset(&self, part: u64, offset: u64) -> u64 {
        self.extent.file_offset.saturating_add(part).saturating_add(offset)
    }

    /// A reader of one kind of table, with a budget of its own.
    pub(super) fn part<'a>(&self, source: &'a dyn ReadAt, what: &'static str, window: usize) -> Reader<'a> {
        Reader::new(source, what, window, self.limits.lookup_bytes)
    }

    /// Address that offsets of functions' further tables count from; None when it cannot be found. The first call searches.
    pub(super) fn func_data_base(
        &self,
        source: &dyn ReadAt,
        image: &ElfImage,
    ) -> Result<Option<u64>, GoTableError> {
        if let Some(known) = self.func_data_base.get() {
            return Ok(*known);
        }
        let found = ModuleData::find(source, image, self.extent, &self.header, &self.limits)?;
        Ok(*self.func_data_base.get_or_init(|| found.and_then(|found| found.func_data)))
    }

    /// Index of the last function that begins at or before `address`; None before the first and behind the last.
    fn index_of(&self, functab: &mut Reader<'_>, address: u64) -> Result<Option<u64>, GoTableError> {
        let (mut low, mut high) = (0, self.header.functions);
        if address < self.entry(functab, low)? || address >= self.entry(functab, high)? {
            return Ok(None);
        }
        // `low` begins at or before the address, `high` behind it.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.entry(functab, middle)? <= address {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(Some(low))
    }

    /// Address of function `index`; of the one behind the last, where that ends.
    fn entry(&self, functab: &mut Reader<'_>, index: u64) -> Result<u64, GoTableError> {
        let at = self.offset(self.header.functab, index * self.header.entry_bytes());
        match self.header.layout {
            Layout::Go116 => functab.u64(at),
            Layout::Go118 | Layout::Go120 => Ok(self.text.wrapping_add(u64::from(functab.u32(at)?))),
        }
    }

    fn record(
        &self,
        functab: &mut Reader<'_>,
        records: &mut Reader<'_>,
        index: u64,
    ) -> Result<GoRecord, GoTableError> {
        let range = (self.entry(functab, index)?, self.entry(functab, index + 1)?);
        let half = self.header.entry_bytes() / 2;
        let at = self.offset(self.header.functab, index * 2 * half + half);
        let offset = match self.header.layout {
            Layout::Go116 => functab.u64(at)?,
            Layout::Go118 | Layout::Go120 => u64::from(functab.u32(at)?),
        };
        let file_offset = self.offset(self.header.functab, offset);
        let address = self.extent.address.wrapping_add(file_offset - self.extent.file_offset);
        GoRecord::read(records, self.header.layout, (file_offset, address), range)
    }
}

/// Reads many functions of one file's tables.
pub struct GoReader<'a> {
    table: &'a GoTable,
    functab: Reader<'a>,
    records: Reader<'a>,
    values: Reader<'a>,
    names: Reader<'a>,
}

impl GoReader<'_> {
    /// The records of the functions that cover some of `range`, by ascending address, `most` at most.
    ///
    /// # Errors
    /// As [`GoTable::function_at`].
    pub fn records_in(&mut self, range: Range<u64>, most: usize) -> Result<Vec<GoRecord>, GoTableError> {
        let mut found = Vec::new();
        let mut index = self.table.index_of(&mut self.functab, range.start)?.unwrap_or(0);
        while index < self.table.header.functions && found.len() < most {
            let record = self.table.record(&mut self.functab, &mut self.records, index)?;
            if record.entry >= range.end {
                break;
            }
            if record.end > range.start && record.entry < record.end {
                found.push(record);
            }
            index += 1;
        }
        Ok(found)
    }

    /// How far the stack pointer lies below where it was at the function's entry, in bytes, by address: runs that follow each other
    /// and cover the function's code. None of a function without that table: C's or assembly's, which the linker put among Go's.
    ///
    /// # Errors
    /// As [`GoTable::function_at`].
    pub fn stack_deltas(&mut self, record: &GoRecord) -> Result<Vec<(Range<u64>, i32)>, GoTableError> {
        let mut deltas = Vec::new();
        if record.pcsp == 0 {
            return Ok(deltas);
        }
        let mut values = self.table.pc_values(&mut self.values, record, record.pcsp);
        while let Some((range, value)) = values.next()? {
            if range.start >= record.end {
                break;
            }
            let range = range.start..range.end.min(record.end);
            if deltas.len() == MAX_RUNS {
                return Err(GoTableError::Malformed("a function has too many stack pointers"));
            }
            if !range.is_empty() {
                deltas.push((range, value));
            }
        }
        Ok(deltas)
    }

    /// The function's name.
    ///
    /// # Errors
    /// As [`GoTable::function_at`].
    pub fn name(&mut self, record: &GoRecord) -> Result<String, GoTableError> {
        self.table.name_at(&mut self.names, record.name)
    }
}
