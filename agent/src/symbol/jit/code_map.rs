//! What a file tells of code, as far as it was read: perf map or jitdump.

use std::io;

use crate::symbol::jit::code_table::CodeTable;
use crate::symbol::jit::jitdump::JitdumpError;
use crate::symbol::jit::name::{self, WrittenName};
use crate::symbol::jit::{jitdump, perf_map};
use crate::symbol::read_at::ReadAt;

/// Bytes of a file that one look takes in; the next look goes on.
const MOST_PER_LOOK: u64 = 64 << 20;

/// How a file tells of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapFormat {
    /// Text, a line per function.
    PerfMap,
    /// Binary records.
    Jitdump,
}

/// The code that a file tells of. Knows nothing of where the file is, and does not notice that it is another one by now.
#[derive(Debug)]
pub struct CodeMap {
    format: MapFormat,
    /// Where the next look begins.
    offset: u64,
    table: CodeTable,
    bad: u64,
    full: bool,
    refused: Option<JitdumpError>,
}

impl CodeMap {
    /// Of a file of which nothing was read.
    pub fn new(format: MapFormat) -> Self {
        Self { format, offset: 0, table: CodeTable::default(), bad: 0, full: false, refused: None }
    }

    /// How the file tells of code.
    pub fn format(&self) -> MapFormat {
        self.format
    }

    /// Takes in what `map` holds behind what was read before, and returns where that ended: behind [`CodeMap::offset`] if a line
    /// or record is not whole yet. The table may grow to `limit` bytes.
    ///
    /// # Errors
    /// When the file cannot be read, or has become shorter.
    pub fn read(&mut self, map: &dyn ReadAt, limit: usize) -> io::Result<u64> {
        if self.full || self.refused.is_some() {
            return Ok(self.offset);
        }
        if self.offset == 0 && self.format == MapFormat::Jitdump {
            match jitdump::first_record(map, map.len())? {
                None => return Ok(0),
                Some(Ok(first)) => self.offset = first,
                Some(Err(error)) => {
                    self.refused = Some(error);
                    return Ok(0);
                }
            }
        }
        let end = map.len().min(self.offset.saturating_add(MOST_PER_LOOK));
        let read = match self.format {
            MapFormat::PerfMap => perf_map::read,
            MapFormat::Jitdump => jitdump::read,
        };
        let progress = read(map, self.offset, end, &mut self.table, limit)?;
        self.offset = progress.offset;
        self.bad += progress.bad;
        self.full |= progress.full;
        Ok(end)
    }

    /// Where the next look begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Where in the file the name of the code at `address` begins.
    pub fn find(&self, address: u64) -> Option<u32> {
        Some(self.table.find(address)?.name_at)
    }

    /// The name that begins at `at` in `map`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn name(&self, map: &dyn ReadAt, at: u32) -> io::Result<WrittenName> {
        let end = match self.format {
            MapFormat::PerfMap => b'\n',
            MapFormat::Jitdump => 0,
        };
        name::name_at(map, at.into(), end)
    }

    /// Pieces of code that it tells of.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether it tells of none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lines or records that made no sense.
    pub fn bad(&self) -> u64 {
        self.bad
    }

    /// Whether it is not read further, because the table is full or the file is broken there.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Why the file as a whole cannot be used.
    pub fn refused(&self) -> Option<JitdumpError> {
        self.refused
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.table.heap_bytes()
    }
}
