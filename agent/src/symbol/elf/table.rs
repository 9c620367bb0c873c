//! Reading a file's tables, record by record, within bounds.

use std::ffi::CStr;
use std::io;

use object::pod::{self, Pod};

use super::ElfError;
use crate::symbol::read_at::ReadAt;

/// Bytes read at once: enough to make the system call cheap, little enough to forget.
const CHUNK: usize = 32 * 1024;

/// Bytes that most names fit in.
const SHORT_NAME: u64 = 256;
/// Bytes between two names that it costs less to read than to leave out.
const NEAR: u64 = 2 * 1024;
/// Bytes of names that are read at once.
const STRETCH: u64 = 32 * 1024;

/// A table within a file, known to lie inside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    what: &'static str,
    offset: u64,
    count: u64,
    record_bytes: usize,
}

impl Table {
    /// `count` records of type `T` from `offset` on; an error unless they lie inside `source` and take at
    /// most `limit` bytes.
    pub(super) fn new<T: Pod>(
        source: &dyn ReadAt,
        what: &'static str,
        offset: u64,
        count: u64,
        limit: u64,
    ) -> Result<Self, ElfError> {
        let record_bytes = size_of::<T>();
        let bytes = count.saturating_mul(record_bytes as u64);
        if bytes > limit {
            return Err(ElfError::TooLarge { what, bytes, limit });
        }
        if offset.checked_add(bytes).is_none_or(|end| end > source.len()) {
            return Err(ElfError::Malformed { what, reason: "lies beyond the end of the file" });
        }
        Ok(Self { what, offset, count, record_bytes })
    }

    /// Number of records.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The record with this index; None past the end.
    pub(super) fn get<T: Pod>(&self, source: &dyn ReadAt, index: u64) -> Result<Option<T>, ElfError> {
        if index >= self.count {
            return Ok(None);
        }
        let offset = self.offset + index * self.record_bytes as u64;
        read_record(source, self.what, offset).map(Some)
    }

    /// Calls `visit` with each record and its index, in order. `T` is the type the table was made with.
    pub(super) fn for_each<T: Pod>(
        &self,
        source: &dyn ReadAt,
        mut visit: impl FnMut(u64, &T) -> Result<(), ElfError>,
    ) -> Result<(), ElfError> {
        debug_assert_eq!(self.record_bytes, size_of::<T>());
        let in_chunk = (CHUNK / self.record_bytes).max(1) as u64;
        let mut chunk = vec![0; in_chunk.min(self.count) as usize * self.record_bytes];
        let mut index = 0;
        while index < self.count {
            let records = in_chunk.min(self.count - index) as usize;
            let bytes = chunk.get_mut(..records * self.record_bytes).unwrap_or_default();
            // Inside the file by construction: the sum does not wrap.
            let offset = self.offset + index * self.record_bytes as u64;
            read(source, self.what, offset, bytes)?;
            for record in bytes.chunks_exact(self.record_bytes) {
                let (record, _) = pod::from_bytes::<T>(record)
                    .map_err(|()| ElfError::Malformed { what: self.what, reason: "is misaligned" })?;
                visit(index, record)?;
                index += 1;
            }
        }
        Ok(())
    }
}

/// One record at `offset`.
pub(super) fn read_record<T: Pod>(
    source: &dyn ReadAt,
    what: &'static str,
    offset: u64,
) -> Result<T, ElfError> {
    let mut record = None;
    Table::new::<T>(source, what, offset, 1, u64::MAX)?.for_each(source, |_, read: &T| {
        record = Some(*read);
        Ok(())
    })?;
    record.ok_or(ElfError::Malformed { what, reason: "is empty" })
}

/// All of a range of the file, at most `limit` bytes.
pub(super) fn read_bytes(
    source: &dyn ReadAt,
    what: &'static str,
    offset: u64,
    size: u64,
    limit: u64,
) -> Result<Vec<u8>, ElfError> {
    Table::new::<u8>(source, what, offset, size, limit)?;
    let mut bytes = vec![0; size as usize];
    read(source, what, offset, &mut bytes)?;
    Ok(bytes)
}

fn read(source: &dyn ReadAt, what: &'static str, offset: u64, bytes: &mut [u8]) -> Result<(), ElfError> {
    source.read_exact_at(offset, bytes).map_err(|source| ElfError::Read { what, source })
}

/// A string table: where it lies, nothing of what it holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Strings {
    offset: u64,
    size: u64,
}

impl Strings {
    /// The longest name returned, in bytes; a longer one is cut. Names of C++ templates pass 10 KiB.
    pub(super) const MAX_NAME: usize = 64 * 1024;

    /// Clipped to the source's length, so that a wrong size costs only the names beyond it.
    pub(super) fn new(source: &dyn ReadAt, offset: u64, size: u64) -> Self {
        let offset = offset.min(source.len());
        Self { offset, size: size.min(source.len() - offset) }
    }

    /// File offset and bytes of the table.
    pub(super) fn range(&self) -> (u64, u64) {
        (self.offset, self.size)
    }

    /// Tells `found` for each of `offsets`, in their order, the bytes there up to a NUL, or the first `max` of them. Where offsets
    /// ascend and lie close together they cost one read.
    pub(super) fn read_all(
        &self,
        source: &dyn ReadAt,
        offsets: &[u64],
        max: usize,
        found: &mut dyn FnMut(io::Result<&[u8]>),
    ) {
        let mut stretch = Vec::with_capacity(STRETCH as usize);
        let mut rest = offsets;
        while let Some((&first, _)) = rest.split_first() {
            let near = rest.windows(2).take_while(|two| is_near(first, two)).count() + 1;
            let (together, others) = rest.split_at(near);
            self.read_stretch(source, together, &mut stretch);
            for offset in together {
                let bytes = stretch.get((offset - first) as usize..).unwrap_or_default();
                match CStr::from_bytes_until_nul(bytes) {
                    Ok(name) if name.count_bytes() <= max => found(Ok(name.to_bytes())),
                    // It is longer than most, or cannot be read.
                    _ => match self.read(source, *offset, max) {
                        Ok(name) => found(Ok(&name)),
                        Err(error) => found(Err(error)),
                    },
                }
            }
            rest = others;
        }
    }

    /// Reads from the first of `offsets` on as far as most names at the last one go; nothing where that is not possible.
    fn read_stretch(&self, source: &dyn ReadAt, offsets: &[u64], stretch: &mut Vec<u8>) {
        stretch.clear();
        let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else { return };
        let end = last.saturating_add(SHORT_NAME).min(self.size);
        let Some(bytes) = end.checked_sub(*first) else { return };
        stretch.resize(bytes as usize, 0);
        if source.read_exact_at(self.offset + first, stretch).is_err() {
            stretch.clear();
        }
    }

    /// The bytes at `offset` up to a NUL, or the first `max` of them.
    pub(super) fn read(&self, source: &dyn ReadAt, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let mut name = Vec::new();
        let mut room = self.size.checked_sub(offset).filter(|&room| room > 0).ok_or_else(outside)?;
        let mut position = self.offset + offset;
        let mut chunk = SHORT_NAME;
        while name.len() < max {
            let wanted = room.min(chunk).min((max - name.len()) as u64);
            if wanted == 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a name runs past its string table"));
            }
            let filled = name.len();
            name.resize(filled + wanted as usize, 0);
            let fresh = name.get_mut(filled..).unwrap_or_default();
            source.read_exact_at(position, fresh)?;
            if let Some(end) = fresh.iter().position(|&byte| byte == 0) {
                name.truncate(filled + end);
                return Ok(name);
            }
            position += wanted;
            room -= wanted;
            chunk = 4096;
        }
        Ok(name)
    }
}

/// Whether the second of two offsets is read together with the first one and with the `start` of the stretch.
fn is_near(start: u64, two: &[u64]) -> bool {
    match two {
        [one, other] => (*one..=one.saturating_add(NEAR)).contains(other) && other - start <= STRETCH,
        _ => false,
    }
}

fn outside() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a name lies outside its string table")
}
