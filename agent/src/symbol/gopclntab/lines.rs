//! From an address to the functions that were inlined there, and their lines.

use super::GoTableError;
use super::function::GoRecord;
use super::header::Layout;
use super::module_data::file_offset;
use super::reader::Reader;
use super::table::GoTable;
use crate::symbol::elf::ElfImage;
use crate::symbol::read_at::ReadAt;

/// `internal/abi.PCDATA_InlTreeIndex`: the pc-value table of indexes into the inlining tree.
const INLINE_INDEX: u32 = 2;
/// `internal/abi.FUNCDATA_InlTree`.
const INLINE_TREE: u8 = 3;
/// Offset of a function's table that is not there.
const ABSENT: u32 = u32::MAX;
/// Functions inlined into each other at one address; Go's own code has a dozen.
const MAX_INLINED: usize = 128;
/// Bytes read at once: tables of one look-up lie apart.
const WINDOW: usize = 256;

/// A function at an address, and where in its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoLine {
    /// The function's name.
    pub function: String,
    /// Path of the source file as the compiler knew it; empty when it is not known.
    pub file: String,
    /// Line in the file; 0 when it is not known.
    pub line: u32,
}

/// A call that was inlined (`runtime.inlinedCall`).
struct Inlined {
    name: u32,
    /// Where in the function the call was.
    call: u64,
}

impl GoTable {
    /// The functions at the link-time `address` and their lines, the innermost inlined one first, the one that has the code last.
    /// For a return address ask for the byte before. Empty outside all functions. Where the inlining tree cannot be found (its
    /// base stands in the program's data), the outer function alone, without a line where another was inlined.
    ///
    /// # Errors
    /// As [`GoTable::function_at`].
    pub fn lines(
        &self,
        source: &dyn ReadAt,
        image: &ElfImage,
        address: u64,
    ) -> Result<Vec<GoLine>, GoTableError> {
        let Some(record) = self.record_at(source, address)? else { return Ok(Vec::new()) };
        let mut lines = Lines {
            table: self,
            record,
            values: self.part(source, "a function's tables", WINDOW),
            names: self.part(source, "the names", WINDOW),
            tree: None,
        };
        lines.tree = lines.find_tree(source, image)?;
        lines.all(address)
    }
}

struct Lines<'t, 'a> {
    table: &'t GoTable,
    record: GoRecord,
    /// For tables of numbers.
    values: Reader<'a>,
    names: Reader<'a>,
    /// File offset of the inlining tree.
    tree: Option<u64>,
}

impl Lines<'_, '_> {
    fn all(&mut self, address: u64) -> Result<Vec<GoLine>, GoTableError> {
        let mut lines = Vec::new();
        let mut pc = address;
        loop {
            let index = self.inline_index(pc)?;
            let inlined = match (index, self.tree) {
                (Some(index), Some(tree)) if lines.len() < MAX_INLINED => Some(self.inlined(tree, index)?),
                _ => None,
            };
            let (file, line) = match (index, &inlined) {
                (Some(_), None) => (String::new(), 0),
                _ => self.line(pc)?,
            };
            let name = inlined.as_ref().map_or(self.record.name, |inlined| inlined.name);
            lines.push(GoLine { function: self.table.name_at(&mut self.names, name)?, file, line });
            let Some(inlined) = inlined else { return Ok(lines) };
            pc = inlined.call;
        }
    }

    fn value(&mut self, offset: u32, pc: u64) -> Result<Option<u32>, GoTableError> {
        if offset == 0 {
            return Ok(None);
        }
        let value = self.table.pc_values(&mut self.values, &self.record, offset).value_at(pc)?;
        Ok(value.and_then(|value| u32::try_from(value).ok()))
    }

    /// Index of the innermost inlined call at `pc`.
    fn inline_index(&mut self, pc: u64) -> Result<Option<u32>, GoTableError> {
        let (count, list) = self.record.pc_data;
        if count <= INLINE_INDEX {
            return Ok(None);
        }
        let offset = self.values.u32(list.saturating_add(4 * u64::from(INLINE_INDEX)))?;
        self.value(offset, pc)
    }

    fn inlined(&mut self, tree: u64, index: u32) -> Result<Inlined, GoTableError> {
        // Go 1.20 has dropped the file and the line of the call, which its address has too.
        let (size, name, call) = match self.table.header.layout {
            Layout::Go116 | Layout::Go118 => (20, 12, 16),
            Layout::Go120 => (16, 4, 8),
        };
        let at = tree.saturating_add(size * u64::from(index));
        let name = self.values.u32(at.saturating_add(name))?;
        let call = u64::from(self.values.u32(at.saturating_add(call))?);
        Ok(Inlined { name, call: self.record.entry.wrapping_add(call) })
    }

    /// File and line of `pc`.
    fn line(&mut self, pc: u64) -> Result<(String, u32), GoTableError> {
        let header = &self.table.header;
        let (Some(file), Some(line)) =
            (self.value(self.record.pcfile, pc)?, self.value(self.record.pcln, pc)?)
        else {
            return Ok((String::new(), 0));
        };
        let index = 4 * (u64::from(self.record.unit) + u64::from(file));
        let name = self.values.u32(self.table.offset(header.units, index))?;
        if name == ABSENT {
            return Ok((String::new(), line));
        }
        Ok((self.table.string(&mut self.names, header.files, u64::from(name))?, line))
    }

    fn find_tree(&mut self, source: &dyn ReadAt, image: &ElfImage) -> Result<Option<u64>, GoTableError> {
        let (count, list) = self.record.func_data;
        if count <= INLINE_TREE {
            return Ok(None);
        }
        let address = match self.table.header.layout {
            Layout::Go116 => self.values.u64(list.saturating_add(8 * u64::from(INLINE_TREE)))?,
            Layout::Go118 | Layout::Go120 => {
                let offset = self.values.u32(list.saturating_add(4 * u64::from(INLINE_TREE)))?;
                if offset == ABSENT {
                    return Ok(None);
                }
                let Some(base) = self.table.func_data_base(source, image)? else { return Ok(None) };
                base.wrapping_add(u64::from(offset))
            }
        };
        Ok(file_offset(image, address))
    }
}
