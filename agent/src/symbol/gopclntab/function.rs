//! A function's record (`runtime._func`).

use super::GoTableError;
use super::header::Layout;
use super::reader::Reader;

/// `internal/abi.FuncFlagTopFrame`, from Go 1.17 on.
const TOP_FRAME: u8 = 1;
/// `internal/abi.FuncFlagSPWrite`, from Go 1.17 on.
const WRITES_SP: u8 = 2;
/// Bytes of the longest record without what follows it.
const RECORD_BYTES: usize = 44;

/// What a function is to somebody who walks the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoFrame {
    /// It has no caller: goroutines and threads begin there.
    pub top: bool,
    /// It sets the stack pointer to what no table says: it switches stacks.
    pub writes_sp: bool,
    /// The runtime treats it differently from others; its name tells how.
    pub special: bool,
}

/// A function's record: where its own tables lie. Offsets are the file's, 0 for a table that it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoRecord {
    /// Link-time address of its first byte.
    pub entry: u64,
    /// Where the next function begins.
    pub end: u64,
    /// What it is to somebody who walks the stack.
    pub frame: GoFrame,
    /// Offset of its name.
    pub(super) name: u32,
    pub(super) pcsp: u32,
    pub(super) pcfile: u32,
    pub(super) pcln: u32,
    /// Index of its compilation unit's first file.
    pub(super) unit: u32,
    /// Number of further pc-value tables, and file offset of the list of them.
    pub(super) pc_data: (u32, u64),
    /// Number of further tables, and file offset of the list of them.
    pub(super) func_data: (u8, u64),
}

impl GoRecord {
    /// Reads the record at `file_offset`, which is at `address` in memory.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        layout: Layout,
        (file_offset, address): (u64, u64),
        (entry, end): (u64, u64),
    ) -> Result<Self, GoTableError> {
        // Go 1.18 has halved the first field, Go 1.20 has added one behind the others.
        let (first, tail) = match layout {
            Layout::Go116 => (8, 40),
            Layout::Go118 => (4, 36),
            Layout::Go120 => (4, 40),
        };
        let record: [u8; RECORD_BYTES] = reader.array(file_offset)?;
        let word = |index: usize| {
            let bytes = record.get(first + 4 * index..).and_then(|rest| rest.first_chunk::<4>());
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let byte = |index: usize| record.get(tail + index).copied().unwrap_or_default();
        let (id, flags) = (byte(0), byte(1));
        let pc_data = file_offset + tail as u64 + 4;
        let count = word(6);
        let after = 4 * u64::from(count);
        // Pointers are aligned in memory.
        let padding =
            if layout == Layout::Go116 { address.wrapping_add(tail as u64 + 4 + after) & 4 } else { 0 };
        Ok(Self {
            entry,
            end,
            frame: GoFrame {
                top: flags & TOP_FRAME != 0,
                writes_sp: flags & WRITES_SP != 0,
                special: id != 0 || flags != 0,
            },
            name: word(0),
            pcsp: word(3),
            pcfile: word(4),
            pcln: word(5),
            unit: word(7),
            pc_data: (count, pc_data),
            func_data: (byte(3), pc_data + after + padding),
        })
    }
}
