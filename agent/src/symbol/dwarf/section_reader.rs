//! gimli's `Reader` over a [`Section`]: bytes come from the block cache.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use gimli::{Error, LittleEndian, Reader, ReaderOffsetId, Result};

use super::blocks::Block;
use super::section::Section;

/// The longest string, and the longest piece that is handed out as a whole. Names of C++ templates pass 10 KiB.
const MAX_PIECE: usize = 64 << 10;

/// A part of a section. While it reads on it holds one block; a clone and a part split off hold none, so that what a context
/// keeps for long keeps no block alive.
pub(super) struct SectionReader {
    section: Arc<Section>,
    at: u64,
    end: u64,
    block: Option<Arc<Block>>,
}

impl SectionReader {
    /// All of `section`.
    pub(super) fn new(section: Arc<Section>) -> Self {
        let end = section.len();
        Self { section, at: 0, end, block: None }
    }

    /// The bytes at hand from `self.at` on: one at least.
    fn at_hand(&mut self) -> Result<&[u8]> {
        let at = self.at;
        let within =
            |block: &Block| at.checked_sub(block.start).is_some_and(|into| into < block.bytes.len() as u64);
        if !self.block.as_deref().is_some_and(within) {
            if at >= self.end {
                return Err(Error::UnexpectedEof(self.offset_id()));
            }
            self.block = Some(self.section.block(at)?);
        }
        let block = self.block.as_deref().ok_or(Error::Io)?;
        let room = (self.end - at).min(block.bytes.len() as u64) as usize;
        let bytes = block.bytes.get((at - block.start) as usize..).unwrap_or_default();
        match bytes.get(..room.min(bytes.len())).unwrap_or_default() {
            [] => Err(Error::UnexpectedEof(ReaderOffsetId(at))),
            bytes => Ok(bytes),
        }
    }

    /// Goes on by `len` bytes, which are there.
    fn advance(&mut self, len: u64) {
        self.at += len;
    }

    fn read_into(&mut self, buffer: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let bytes = self.at_hand()?;
            let len = bytes.len().min(rest.len());
            if let (Some(to), Some(from)) = (rest.get_mut(..len), bytes.get(..len)) {
                to.copy_from_slice(from);
            }
            filled += len;
            self.advance(len as u64);
        }
        Ok(())
    }
}

impl Reader for SectionReader {
    type Endian = LittleEndian;
    type Offset = usize;

    fn endian(&self) -> LittleEndian {
        LittleEndian
    }

    fn len(&self) -> usize {
        (self.end - self.at) as usize
    }

    fn empty(&mut self) {
        self.end = self.at;
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        if len > Reader::len(self) {
            return Err(Error::UnexpectedEof(self.offset_id()));
        }
        self.end = self.at + len as u64;
        Ok(())
    }

    fn offset_from(&self, base: &Self) -> usize {
        self.at.saturating_sub(base.at) as usize
    }

    fn offset_id(&self) -> ReaderOffsetId {
        ReaderOffsetId(self.at)
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<usize> {
        (self.at..=self.end).contains(&id.0).then(|| (id.0 - self.at) as usize)
    }

    fn find(&self, byte: u8) -> Result<usize> {
        let mut reader = self.clone();
        // A string most often lies in the block at hand.
        reader.block.clone_from(&self.block);
        let mut passed = 0;
        while passed < MAX_PIECE {
            let bytes = reader.at_hand()?;
            if let Some(found) = bytes.iter().position(|&other| other == byte) {
                return Ok(passed + found);
            }
            let len = bytes.len();
            passed += len;
            reader.advance(len as u64);
        }
        Err(Error::UnexpectedEof(self.offset_id()))
    }

    fn skip(&mut self, len: usize) -> Result<()> {
        if len > Reader::len(self) {
            return Err(Error::UnexpectedEof(self.offset_id()));
        }
        self.advance(len as u64);
        Ok(())
    }

    fn split(&mut self, len: usize) -> Result<Self> {
        let mut part = self.clone();
        part.truncate(len)?;
        self.advance(len as u64);
        // Behind a unit the next one may be hidden, but not in this block.
        if self.section.is_view() {
            self.block = None;
        }
        Ok(part)
    }

    fn to_slice(&self) -> Result<Cow<'_, [u8]>> {
        let len = Reader::len(self);
        if len > MAX_PIECE {
            return Err(Error::UnsupportedOffset);
        }
        let mut bytes = vec![0; len];
        self.clone().read_into(&mut bytes)?;
        Ok(Cow::Owned(bytes))
    }

    fn to_string(&self) -> Result<Cow<'_, str>> {
        let bytes = self.to_slice()?.into_owned();
        String::from_utf8(bytes).map(Cow::Owned).map_err(|_| Error::BadUtf8)
    }

    fn to_string_lossy(&self) -> Result<Cow<'_, str>> {
        Ok(Cow::Owned(String::from_utf8_lossy(&self.to_slice()?).into_owned()))
    }

    fn read_slice(&mut self, buffer: &mut [u8]) -> Result<()> {
        if buffer.len() > Reader::len(self) {
            return Err(Error::UnexpectedEof(self.offset_id()));
        }
        self.read_into(buffer)
    }

    fn read_u8(&mut self) -> Result<u8> {
        let byte = self.at_hand()?.first().copied();
        let byte = byte.ok_or(Error::UnexpectedEof(ReaderOffsetId(self.at)))?;
        self.advance(1);
        Ok(byte)
    }
}

impl Clone for SectionReader {
    fn clone(&self) -> Self {
        Self { section: self.section.clone(), at: self.at, end: self.end, block: None }
    }
}

impl fmt::Debug for SectionReader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}[{:#x}..{:#x}]", self.section, self.at, self.end)
    }
}
