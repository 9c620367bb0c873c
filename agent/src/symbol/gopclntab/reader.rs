//! Reading small pieces of a table with few system calls, up to a budget.

use super::GoTableError;
use crate::symbol::read_at::ReadAt;

/// Bytes of the longest string returned; a longer one is cut.
const MAX_STRING: usize = 64 << 10;

/// A stretch of a source, moved when something outside is asked for.
pub(super) struct Reader<'a> {
    source: &'a dyn ReadAt,
    what: &'static str,
    start: u64,
    bytes: Vec<u8>,
    window: usize,
    budget: u64,
    left: u64,
}

impl<'a> Reader<'a> {
    /// Reads `window` bytes at a time, as far as the source goes, and `budget` in all; `what` is for errors.
    pub(super) fn new(source: &'a dyn ReadAt, what: &'static str, window: usize, budget: u64) -> Self {
        Self { source, what, start: 0, bytes: Vec::new(), window, budget, left: budget }
    }

    /// `len` bytes from `offset` on; the caller bounds `len`.
    pub(super) fn get(&mut self, offset: u64, len: usize) -> Result<&[u8], GoTableError> {
        let room = self.source.len().saturating_sub(offset);
        if len as u64 > room {
            return Err(GoTableError::Malformed("they lead beyond the end of the file"));
        }
        let held = offset.checked_sub(self.start).filter(|into| into + len as u64 <= self.bytes.len() as u64);
        if held.is_none() {
            let wanted = (self.window.max(len) as u64).min(room);
            let Some(left) = self.left.checked_sub(wanted) else {
                return Err(GoTableError::TooLarge { what: self.what, limit: self.budget });
            };
            self.left = left;
            self.bytes.clear();
            self.bytes.resize(wanted as usize, 0);
            if let Err(error) = self.source.read_exact_at(offset, &mut self.bytes) {
                self.bytes.clear();
                return Err(error.into());
            }
            self.start = offset;
        }
        let into = (offset - self.start) as usize;
        self.bytes
            .get(into..into + len)
            .ok_or(GoTableError::Malformed("they lead beyond the end of the file"))
    }

    /// `N` bytes from `offset` on.
    pub(super) fn array<const N: usize>(&mut self, offset: u64) -> Result<[u8; N], GoTableError> {
        let bytes = self.get(offset, N)?;
        bytes.try_into().map_err(|_| GoTableError::Malformed("they lead beyond the end of the file"))
    }

    /// A little-endian 32-bit number.
    pub(super) fn u32(&mut self, offset: u64) -> Result<u32, GoTableError> {
        self.array(offset).map(u32::from_le_bytes)
    }

    /// A little-endian 64-bit number.
    pub(super) fn u64(&mut self, offset: u64) -> Result<u64, GoTableError> {
        self.array(offset).map(u64::from_le_bytes)
    }

    /// The bytes from `offset` up to a NUL or to `end`, with what is not UTF-8 replaced.
    pub(super) fn string(&mut self, offset: u64, end: u64) -> Result<String, GoTableError> {
        let end = end.min(offset.saturating_add(MAX_STRING as u64)).min(self.source.len());
        let mut name = Vec::new();
        let mut at = offset;
        while at < end {
            let len = (end - at).min(self.window as u64) as usize;
            let bytes = self.get(at, len)?;
            let nul = bytes.iter().position(|&byte| byte == 0);
            name.extend_from_slice(bytes.get(..nul.unwrap_or(len)).unwrap_or_default());
            if nul.is_some() {
                break;
            }
            at += len as u64;
        }
        Ok(String::from_utf8_lossy(&name).into_owned())
    }
}
