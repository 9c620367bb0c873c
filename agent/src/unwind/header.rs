//! `.eh_frame_hdr`: the linker's sorted table of functions and their FDEs (LSB Core 5.0, section 10.6.2).

use gimli::DwEhPe;
use gimli::constants::DW_EH_PE_omit;

use super::CfiError;
use super::entry::Extent;
use super::window::Window;

/// Formats of numbers: the lower four bits of an encoding.
mod format {
    pub(super) const ABSOLUTE: u8 = 0x00;
    pub(super) const U16: u8 = 0x02;
    pub(super) const U32: u8 = 0x03;
    pub(super) const U64: u8 = 0x04;
    pub(super) const I16: u8 = 0x0a;
    pub(super) const I32: u8 = 0x0b;
    pub(super) const I64: u8 = 0x0c;
}

/// What numbers count from: the three bits above.
mod relative_to {
    pub(super) const NOTHING: u8 = 0x00;
    pub(super) const ITSELF: u8 = 0x10;
    pub(super) const SECTION: u8 = 0x30;
}

/// The fixed part and the two longest numbers that can follow it.
const LONGEST_PREFIX: u64 = 4 + 8 + 8;
/// Entries read at once in the end of a search: 4 KiB of the usual 8 bytes.
const CHUNK: u64 = 512;

/// The sorted table.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeaderTable {
    file_offset: u64,
    /// Entries.
    pub(super) count: u64,
    encoding: DwEhPe,
    /// Address of the section: what numbers relative to the section count from.
    base: u64,
}

/// A function and its FDE: addresses as the file was linked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) start: u64,
    pub(super) fde: u64,
}

/// What the section says: where `.eh_frame` begins, and the table if it has one that can be searched.
pub(super) struct Header {
    pub(super) eh_frame: u64,
    pub(super) table: Result<HeaderTable, CfiError>,
}

impl Header {
    /// Reads the fixed part of the section at `at`.
    pub(super) fn read(window: &mut Window<'_>, at: Extent) -> Result<Self, CfiError> {
        let room = window.source_len().saturating_sub(at.file_offset).min(at.size);
        let bytes = window.get(at.file_offset, LONGEST_PREFIX.min(room) as usize)?;
        let &[version, pointer, count, table, ref rest @ ..] = bytes else {
            return Err(CfiError::Malformed("the header of .eh_frame is too short"));
        };
        if version != 1 {
            return Err(CfiError::Unsupported("another version of .eh_frame_hdr"));
        }
        let address = at.address.wrapping_add(4);
        let (eh_frame, used) = decode(DwEhPe(pointer), rest, address, at.address)?;
        let rest = rest.get(used..).unwrap_or_default();
        let counted = decode(DwEhPe(count), rest, address.wrapping_add(used as u64), at.address);
        let table = counted.and_then(|(count, length)| {
            let prefix = (4 + used + length) as u64;
            HeaderTable::new(at, room.saturating_sub(prefix), prefix, count, DwEhPe(table))
        });
        Ok(Self { eh_frame, table })
    }
}

impl HeaderTable {
    fn new(at: Extent, room: u64, prefix: u64, count: u64, encoding: DwEhPe) -> Result<Self, CfiError> {
        let size = fixed_size(encoding)?;
        if encoding.application().0 == relative_to::ITSELF {
            return Err(CfiError::Unsupported("a table in .eh_frame_hdr relative to itself"));
        }
        let bytes = count.saturating_mul(2 * size as u64);
        if bytes > room {
            return Err(CfiError::TooLarge { what: "the table of .eh_frame_hdr", bytes, limit: room });
        }
        Ok(Self { file_offset: at.file_offset + prefix, count, encoding, base: at.address })
    }

    /// The entries from `index` on, `CHUNK` of them at most.
    fn chunk(&self, window: &mut Window<'_>, index: u64, most: u64) -> Result<Vec<Function>, CfiError> {
        let size = fixed_size(self.encoding)?;
        let count = self.count.saturating_sub(index).min(most);
        // Inside the section by construction: the sums do not wrap.
        let offset = self.file_offset + index * 2 * size as u64;
        let bytes = window.get(offset, count as usize * 2 * size)?;
        let entry = |pair: &[u8]| {
            let (start, fde) = pair.split_at_checked(size).unwrap_or_default();
            let (start, _) = decode(self.encoding, start, 0, self.base)?;
            let (fde, _) = decode(self.encoding, fde, 0, self.base)?;
            Ok(Function { start, fde })
        };
        bytes.chunks_exact(2 * size).map(entry).collect()
    }

    /// The functions that may cover addresses in `from..to`: the last that starts at or before `from` and all that start in
    /// between, `most` at most, sorted by start.
    pub(super) fn covering(
        &self,
        window: &mut Window<'_>,
        from: u64,
        to: u64,
        most: usize,
    ) -> Result<Vec<Function>, CfiError> {
        let (mut low, mut high) = (0, self.count);
        while high - low > CHUNK {
            let middle = low + (high - low) / 2;
            let at = self.chunk(window, middle, 1)?;
            if at.first().is_some_and(|function| function.start <= from) {
                low = middle;
            } else {
                high = middle;
            }
        }
        let mut found: Vec<Function> = Vec::new();
        while low < self.count {
            let chunk = self.chunk(window, low, CHUNK)?;
            for function in chunk {
                if function.start >= to || (function.start > from && found.len() >= most) {
                    return Ok(found);
                }
                if found.last().is_some_and(|last| function.start < last.start) {
                    return Err(CfiError::Malformed("the table of .eh_frame_hdr is not sorted"));
                }
                if function.start <= from {
                    found.clear();
                }
                found.push(function);
            }
            low += CHUNK;
        }
        Ok(found)
    }
}

/// Bytes of a number in this encoding; only fixed ones can be searched.
fn fixed_size(encoding: DwEhPe) -> Result<usize, CfiError> {
    if encoding == DW_EH_PE_omit || encoding.is_indirect() {
        return Err(CfiError::Unsupported("an .eh_frame_hdr without a table"));
    }
    match encoding.format().0 {
        format::U16 | format::I16 => Ok(2),
        format::U32 | format::I32 => Ok(4),
        format::ABSOLUTE | format::U64 | format::I64 => Ok(8),
        _ => Err(CfiError::Unsupported("numbers of variable length in .eh_frame_hdr")),
    }
}

/// A number at the start of `bytes`, and its length. `address` is where it lies, `base` where the section does.
fn decode(encoding: DwEhPe, bytes: &[u8], address: u64, base: u64) -> Result<(u64, usize), CfiError> {
    let size = fixed_size(encoding)?;
    let bytes = bytes.get(..size).ok_or(CfiError::Malformed(".eh_frame_hdr ends too early"))?;
    let mut padded = [0; 8];
    padded.get_mut(..size).unwrap_or_default().copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(padded);
    let value = match encoding.format().0 {
        format::I16 => unsigned as i16 as u64,
        format::I32 => unsigned as i32 as u64,
        _ => unsigned,
    };
    let origin = match encoding.application().0 {
        relative_to::NOTHING => 0,
        relative_to::ITSELF => address,
        relative_to::SECTION => base,
        _ => return Err(CfiError::Unsupported("pointers in .eh_frame_hdr relative to something else")),
    };
    Ok((origin.wrapping_add(value), size))
}
