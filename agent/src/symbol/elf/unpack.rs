//! Compressed bytes of a file, unpacked into memory within a limit.

use std::cell::Cell;
use std::io::{self, BufRead as _, BufReader, Read};

use flate2::read::ZlibDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;

use super::ElfError;
use crate::symbol::read_at::ReadAt;

/// Bytes read at once.
const CHUNK: usize = 16 << 10;
/// The largest dictionary of `xz -9` takes 64 MiB; the decoder has a little more. It grows with what is decoded, so this is
/// never reserved: the limit of what may come out bounds it.
const XZ_MEMORY_KIB: u32 = 66 << 10;
/// The window, in bytes, that a zstd frame may always ask for: RFC 8878 (section 3.1.1.1.2) wants every decoder to grant it, and
/// encoders that do not know how much is to come ask for it for little data too. It is touched only as far as it is used.
const ZSTD_WINDOW: u64 = 8 << 20;

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Zlib,
    Zstd,
    Xz,
}

/// A range of the file that holds compressed bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed {
    pub(super) what: &'static str,
    pub(super) codec: Codec,
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl Packed {
    /// All that it holds, which is exactly `declared` bytes.
    ///
    /// # Errors
    /// As [`Packed::unpack_up_to`]; [`ElfError::TooLarge`] when `declared` is more than `limit`, before anything is read;
    /// [`ElfError::Malformed`] when it holds more or less than that.
    pub(super) fn unpack(&self, source: &dyn ReadAt, declared: u64, limit: u64) -> Result<Vec<u8>, ElfError> {
        let what = self.what;
        if declared > limit {
            return Err(ElfError::TooLarge { what, bytes: declared, limit });
        }
        // All at once: a vector that grows holds up to three times as much meanwhile. What is not filled is never touched.
        match self.unpack_into(source, declared, Vec::with_capacity(declared as usize)) {
            Ok(bytes) if bytes.len() as u64 == declared => Ok(bytes),
            Ok(_) | Err(ElfError::TooLarge { .. }) => {
                Err(ElfError::Malformed { what, reason: "does not hold what it says" })
            }
            Err(error) => Err(error),
        }
    }

    /// All that it holds, which may be `limit` bytes at most.
    ///
    /// # Errors
    /// [`ElfError::TooLarge`] when it holds more, or is itself larger than data that compression made smaller can be;
    /// [`ElfError::Malformed`] when it cannot be decoded; [`ElfError::Read`] when the file cannot be read.
    pub(super) fn unpack_up_to(&self, source: &dyn ReadAt, limit: u64) -> Result<Vec<u8>, ElfError> {
        let mut bytes = self.unpack_into(source, limit, Vec::new())?;
        bytes.shrink_to_fit();
        Ok(bytes)
    }

    fn unpack_into(&self, source: &dyn ReadAt, limit: u64, mut bytes: Vec<u8>) -> Result<Vec<u8>, ElfError> {
        let what = self.what;
        // Data that cannot be compressed grows by less; endless empty blocks, which cost time, are kept out.
        let longest = limit.saturating_add(limit / 8).saturating_add(4096);
        if self.size > longest {
            return Err(ElfError::TooLarge { what, bytes: self.size, limit: longest });
        }
        let failure = Cell::new(None);
        let end = self.offset.saturating_add(self.size).min(source.len());
        let stretch = Stretch { source, at: self.offset, end, failure: &failure };
        let decoded = self.decode(BufReader::with_capacity(CHUNK, stretch), limit, &mut bytes);
        if let Some(source) = failure.take() {
            return Err(ElfError::Read { what, source });
        }
        let holds_more = decoded.map_err(|error| {
            tracing::debug!(what, codec = ?self.codec, %error, "cannot unpack");
            ElfError::Malformed { what, reason: "cannot be unpacked" }
        })?;
        if holds_more {
            return Err(ElfError::TooLarge { what, bytes: limit.saturating_add(1), limit });
        }
        Ok(bytes)
    }

    /// Appends what the decoder gives, `limit` bytes at most; whether there is more.
    fn decode(
        &self,
        mut packed: BufReader<Stretch<'_>>,
        limit: u64,
        bytes: &mut Vec<u8>,
    ) -> io::Result<bool> {
        match self.codec {
            Codec::Zlib => fill(&mut ZlibDecoder::new(packed), limit, bytes),
            Codec::Xz => fill(&mut XzReader::new_mem_limit(packed, true, XZ_MEMORY_KIB), limit, bytes),
            Codec::Zstd => {
                // Windows are rounded up to an eighth of a power of two.
                let window = limit.saturating_mul(2).max(ZSTD_WINDOW);
                while !packed.fill_buf()?.is_empty() {
                    let mut frame = StreamingDecoder::new_with_max_window_size(&mut packed, window)
                        .map_err(io::Error::other)?;
                    if fill(&mut frame, limit, bytes)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }
}

/// Appends what `reader` gives until there are `limit` bytes; whether there is more. A vector that has room for `limit` does not
/// grow.
fn fill(reader: &mut impl Read, limit: u64, bytes: &mut Vec<u8>) -> io::Result<bool> {
    reader.by_ref().take(limit.saturating_sub(bytes.len() as u64)).read_to_end(bytes)?;
    Ok(reader.read(&mut [0])? > 0)
}

/// A part of a source, read from its beginning to its end.
struct Stretch<'a> {
    source: &'a dyn ReadAt,
    at: u64,
    end: u64,
    /// The first failure of the source, which decoders would mix up with their own.
    failure: &'a Cell<Option<io::Error>>,
}

impl Read for Stretch<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.end.saturating_sub(self.at).min(buffer.len() as u64) as usize;
        if let Err(error) = self.source.read_exact_at(self.at, buffer.get_mut(..len).unwrap_or_default()) {
            let kind = error.kind();
            self.failure.set(Some(error));
            return Err(kind.into());
        }
        self.at = self.at.saturating_add(len as u64);
        Ok(len)
    }
}
