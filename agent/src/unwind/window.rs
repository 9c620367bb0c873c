//! Reading many small neighbouring pieces of a file with few system calls.

use super::CfiError;
use crate::symbol::read_at::ReadAt;

/// One stretch of a source, moved when something outside is asked for.
pub(super) struct Window<'a> {
    source: &'a dyn ReadAt,
    start: u64,
    bytes: Vec<u8>,
    size: usize,
}

impl<'a> Window<'a> {
    /// Reads at least `size` bytes at a time, as far as the source goes.
    pub(super) fn new(source: &'a dyn ReadAt, size: usize) -> Self {
        Self { source, start: 0, bytes: Vec::new(), size }
    }

    /// The source's length in bytes.
    pub(super) fn source_len(&self) -> u64 {
        self.source.len()
    }

    /// `len` bytes from `offset` on.
    ///
    /// # Errors
    /// [`CfiError::Malformed`] when they lie beyond the end, [`CfiError::Read`] when reading fails. The caller bounds `len`.
    pub(super) fn get(&mut self, offset: u64, len: usize) -> Result<&[u8], CfiError> {
        let room = self.source.len().saturating_sub(offset);
        if len as u64 > room {
            return Err(CfiError::Malformed("it lies beyond the end of the file"));
        }
        let held = offset.checked_sub(self.start).filter(|into| into + len as u64 <= self.bytes.len() as u64);
        if held.is_none() {
            let wanted = (self.size.max(len) as u64).min(room) as usize;
            self.bytes.clear();
            self.bytes.resize(wanted, 0);
            if let Err(error) = self.source.read_exact_at(offset, &mut self.bytes) {
                self.bytes.clear();
                return Err(error.into());
            }
            self.start = offset;
        }
        let into = (offset - self.start) as usize;
        self.bytes.get(into..into + len).ok_or(CfiError::Malformed("it lies beyond the end of the file"))
    }

    /// A little-endian 32-bit number.
    pub(super) fn u32(&mut self, offset: u64) -> Result<u32, CfiError> {
        let bytes = self.get(offset, 4)?;
        Ok(bytes.try_into().map_or(0, u32::from_le_bytes))
    }
}
