//! The tables' header (`runtime.pcHeader`).

use super::GoTableError;
use super::reader::Reader;

/// Bytes of the longest header.
pub(super) const HEADER_BYTES: usize = 72;

/// Where something lies, in memory and in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Address the file was linked for.
    pub(super) address: u64,
    /// Offset in the file.
    pub(super) file_offset: u64,
    /// Bytes. Of a file without sections: up to the segment's end.
    pub(super) size: u64,
}

/// A layout of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Go 1.16 and 1.17: functions have addresses.
    Go116,
    /// Go 1.18 and 1.19: functions have distances from the text's beginning.
    Go118,
    /// Go 1.20 and later: functions know the line that they begin in, and inlined ones have shorter records.
    Go120,
}

impl Layout {
    /// By the first four bytes (`internal/abi.PCLnTabMagic`).
    fn of(magic: u32) -> Option<Self> {
        match magic {
            0xffff_fffa => Some(Self::Go116),
            0xffff_fff0 => Some(Self::Go118),
            0xffff_fff1 => Some(Self::Go120),
            _ => None,
        }
    }
}

/// What the header says. Offsets count from the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) layout: Layout,
    /// Bytes that a step in a pc-value table stands for: the shortest instruction.
    pub(super) quantum: u8,
    /// Number of functions.
    pub(super) functions: u64,
    /// Address of the text; 0 where the layout or the linker has left it out.
    pub(super) text: u64,
    /// Names of functions.
    pub(super) names: u64,
    /// Offsets of file names, a run for each compilation unit.
    pub(super) units: u64,
    /// Names of files.
    pub(super) files: u64,
    /// Tables of values by address.
    pub(super) pc_values: u64,
    /// The functions: first a sorted table of addresses, then their records.
    pub(super) functab: u64,
}

impl Header {
    /// Whether the eight bytes begin a header of a layout that is known, for a 64-bit machine.
    pub(super) fn is_start(bytes: [u8; 8]) -> bool {
        let [a, b, c, d, 0, 0, quantum, 8] = bytes else { return false };
        Layout::of(u32::from_le_bytes([a, b, c, d])).is_some() && matches!(quantum, 1 | 2 | 4)
    }

    /// Reads the header of the tables at `table`; every part of them begins inside.
    pub(super) fn read(reader: &mut Reader<'_>, table: Extent) -> Result<Self, GoTableError> {
        let start: [u8; 8] = reader.array(table.file_offset)?;
        let magic = u32::from_le_bytes([start[0], start[1], start[2], start[3]]);
        let layout = Layout::of(magic).ok_or(GoTableError::Unsupported("of a version that is not known"))?;
        if !Self::is_start(start) {
            return Err(GoTableError::Unsupported("not for a 64-bit machine"));
        }
        // The text's address is the third word from Go 1.18 on.
        let skipped = u64::from(layout != Layout::Go116);
        let mut word = |index: u64| reader.u64(table.file_offset + 8 + 8 * index);
        let header = Self {
            layout,
            quantum: start[6],
            functions: word(0)?,
            text: if skipped == 0 { 0 } else { word(2)? },
            names: word(2 + skipped)?,
            units: word(3 + skipped)?,
            files: word(4 + skipped)?,
            pc_values: word(5 + skipped)?,
            functab: word(6 + skipped)?,
        };
        header.check(table.size)?;
        Ok(header)
    }

    fn check(&self, size: u64) -> Result<(), GoTableError> {
        let offsets = [self.names, self.units, self.files, self.pc_values, self.functab];
        if offsets.iter().any(|&offset| offset < 64 || offset >= size) {
            return Err(GoTableError::Malformed("a part lies outside"));
        }
        // One entry more than functions: where the last one ends.
        let entries =
            self.functions.saturating_mul(self.entry_bytes()).saturating_add(self.entry_bytes() / 2);
        if self.functions == 0 || entries > size - self.functab {
            return Err(GoTableError::Malformed("there is no room for as many functions as there are to be"));
        }
        Ok(())
    }

    /// Bytes of an entry in the table of functions.
    pub(super) fn entry_bytes(&self) -> u64 {
        if self.layout == Layout::Go116 { 16 } else { 8 }
    }
}
