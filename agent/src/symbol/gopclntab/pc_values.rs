//! Tables of values by address: runs of bytes, delta-coded (`runtime.pcvalue`, `runtime.step`).

use std::ops::Range;

use super::GoTableError;
use super::reader::Reader;

/// A table, read from its beginning, which is where its function begins.
pub(super) struct PcValues<'r, 'a> {
    reader: &'r mut Reader<'a>,
    at: u64,
    pc: u64,
    value: i32,
    quantum: u8,
    first: bool,
}

impl<'r, 'a> PcValues<'r, 'a> {
    /// The table at file offset `at` of the function that begins at `entry`.
    pub(super) fn new(reader: &'r mut Reader<'a>, at: u64, entry: u64, quantum: u8) -> Self {
        Self { reader, at, pc: entry, value: -1, quantum, first: true }
    }

    /// The next run of addresses and the value there; None when the table has ended.
    pub(super) fn next(&mut self) -> Result<Option<(Range<u64>, i32)>, GoTableError> {
        let delta = self.varint()?;
        if delta == 0 && !self.first {
            return Ok(None);
        }
        self.first = false;
        // Zigzag: the lowest bit is the sign.
        let delta = if delta & 1 == 0 { (delta >> 1) as i32 } else { !((delta >> 1) as i32) };
        self.value = self.value.wrapping_add(delta);
        let start = self.pc;
        let length = u64::from(self.varint()?) * u64::from(self.quantum);
        self.pc =
            start.checked_add(length).ok_or(GoTableError::Malformed("a function's table wraps around"))?;
        Ok(Some((start..self.pc, self.value)))
    }

    /// The value at `pc`; None when the table ends before.
    pub(super) fn value_at(mut self, pc: u64) -> Result<Option<i32>, GoTableError> {
        while let Some((range, value)) = self.next()? {
            if pc < range.end {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// LEB128, 32 bits.
    fn varint(&mut self) -> Result<u32, GoTableError> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.reader.array(self.at)?;
            self.at += 1;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(GoTableError::Malformed("a number has too many bytes"))
    }
}
