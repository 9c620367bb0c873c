//! A file that tells of code, followed while its writer appends to it, cuts it, or writes it anew.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::symbol::jit::code_map::{CodeMap, MapFormat};
use crate::symbol::jit::name::WrittenName;
use crate::symbol::read_at::ReadAt;

/// Bytes at the beginning, and before the place where the next look begins, by which a file that was written anew is told from one that
/// has grown.
const GUARD: u64 = 256;

/// A file that tells of code, and what it has told.
#[derive(Debug)]
pub(super) struct Source {
    code: CodeMap,
    /// Where the process sees it.
    path: String,
    /// Who it is: device and inode. The process has it open or mapped, so the numbers stay its own.
    identity: (u64, u64),
    /// Closed while others are needed more.
    file: Option<File>,
    /// The file as its last look began.
    seen: Option<Version>,
    /// Where the last look ended: behind where the next one begins, if a line or record is not whole yet.
    read_to: u64,
    head: Vec<u8>,
    tail: Vec<u8>,
    /// Another number whenever the file is begun anew: places of names are valid with their serial number only.
    serial: u64,
    /// Lines or records of what the file was before that made no sense.
    bad_before: u64,
}

/// Where a name stands, for as long as the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NamePlace {
    serial: u64,
    at: u32,
}

/// Serial numbers that were given.
static SERIALS: AtomicU64 = AtomicU64::new(0);

impl Source {
    /// Begins to follow `file`, whose path is `path` for the process.
    pub(super) fn new(format: MapFormat, path: String, file: File) -> io::Result<Self> {
        Ok(Self {
            code: CodeMap::new(format),
            path,
            identity: identity(&file)?,
            file: Some(file),
            seen: None,
            read_to: 0,
            head: Vec::new(),
            tail: Vec::new(),
            serial: SERIALS.fetch_add(1, Ordering::Relaxed),
            bad_before: 0,
        })
    }

    /// How it tells of code.
    pub(super) fn format(&self) -> MapFormat {
        self.code.format()
    }

    /// Where the process sees it.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Takes `file`, which was just opened where this one was found: follows that one from now on. A file that was put in its
    /// place is begun from its beginning.
    pub(super) fn reopen(&mut self, file: File) -> io::Result<()> {
        let identity = identity(&file)?;
        if identity != self.identity {
            self.identity = identity;
            self.begin_anew();
        }
        self.file = Some(file);
        Ok(())
    }

    /// Closes the file until it is opened again.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// Takes in what has come since the last look. The table may grow to `limit` bytes.
    pub(super) fn look(&mut self, limit: usize) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let looked = self.look_at(&file, limit);
        self.file = Some(file);
        match looked {
            // It is being cut or written anew: the next look sees what has become of it.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.begin_anew();
                Ok(())
            }
            looked => looked,
        }
    }

    fn look_at(&mut self, file: &File, limit: usize) -> io::Result<()> {
        let now = Version::of(file)?;
        let nothing_left = self.read_to >= now.length || self.is_over();
        if self.seen == Some(now) && nothing_left {
            return Ok(());
        }
        let source = Length { file, length: now.length };
        let rewritten = self.seen.is_some_and(|seen| seen.length == now.length && seen != now);
        if now.length < self.read_to || rewritten || !self.guards_hold(&source)? {
            self.begin_anew();
        }
        self.seen = Some(now);
        if !self.is_over() {
            self.read(&source, limit)?;
            self.set_guards(&source)?;
        }
        Ok(())
    }

    fn read(&mut self, source: &Length<'_>, limit: usize) -> io::Result<()> {
        self.read_to = self.code.read(source, limit)?;
        if let Some(error) = self.code.refused() {
            tracing::warn!("cannot use {}: {error}", self.path);
        }
        if self.code.is_full() {
            tracing::warn!(
                entries = self.code.len(),
                "{} is not read further at byte {}: it is larger than its share of memory, or broken there",
                self.path,
                self.code.offset()
            );
        }
        Ok(())
    }

    /// Whether the file is not read further, whatever comes.
    fn is_over(&self) -> bool {
        self.code.is_full() || self.is_refused()
    }

    fn begin_anew(&mut self) {
        self.seen = None;
        self.read_to = 0;
        self.head.clear();
        self.tail.clear();
        self.bad_before = self.bad();
        self.code = CodeMap::new(self.code.format());
        self.serial = SERIALS.fetch_add(1, Ordering::Relaxed);
    }

    fn guards_hold(&self, source: &Length<'_>) -> io::Result<bool> {
        Ok(self.head == source.bytes(0, self.head.len() as u64)?
            && self.tail
                == source.bytes(self.code.offset() - self.tail.len() as u64, self.tail.len() as u64)?)
    }

    fn set_guards(&mut self, source: &Length<'_>) -> io::Result<()> {
        let offset = self.code.offset();
        let length = offset.min(GUARD);
        self.head = source.bytes(0, length)?;
        self.tail = source.bytes(offset - length, length)?;
        Ok(())
    }

    /// Where the name of the code at `address` stands.
    pub(super) fn find(&self, address: u64) -> Option<NamePlace> {
        Some(NamePlace { serial: self.serial, at: self.code.find(address)? })
    }

    /// Reads the name at `place`; `None` where the file is closed, or is not the one any more that told of it.
    pub(super) fn name(&self, place: NamePlace) -> Option<io::Result<WrittenName>> {
        let file = self.file.as_ref().filter(|_| place.serial == self.serial)?;
        self.name_in(file, place).transpose()
    }

    fn name_in(&self, file: &File, place: NamePlace) -> io::Result<Option<WrittenName>> {
        let now = Version::of(file)?;
        let source = Length { file, length: now.length };
        if self.seen != Some(now) && (now.length < self.read_to || !self.guards_hold(&source)?) {
            return Ok(None);
        }
        self.code.name(&source, place.at).map(Some)
    }

    /// Pieces of code that it tells of.
    pub(super) fn len(&self) -> usize {
        self.code.len()
    }

    /// Lines or records that made no sense.
    pub(super) fn bad(&self) -> u64 {
        self.bad_before + self.code.bad()
    }

    /// Whether it holds nothing that could be used.
    pub(super) fn is_refused(&self) -> bool {
        self.code.refused().is_some()
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.code.heap_bytes() + self.path.capacity() + self.head.capacity() + self.tail.capacity()
    }
}

/// A state of a file that is told from others without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    length: u64,
    /// Seconds and nanoseconds of the last change.
    changed: (i64, i64),
}

impl Version {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { length: metadata.len(), changed: (metadata.mtime(), metadata.mtime_nsec()) })
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// A file with the length that it had a moment ago.
struct Length<'a> {
    file: &'a File,
    length: u64,
}

impl Length<'_> {
    fn bytes(&self, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        self.read_exact_at(offset, &mut bytes)?;
        Ok(bytes)
    }
}

impl ReadAt for Length<'_> {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

#[cfg(test)]
mod tests;
