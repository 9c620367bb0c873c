//! A debug section, read block by block.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::blocks::{BLOCK, Block, BlockCache};
use super::compressed::Inflater;
use super::debug_lines::SharedSource;
use super::refused::LinesRefused;
use super::view::View;
use crate::symbol::elf::{self, ElfError, Section as Header};

/// The file that sections are read from: it is there for the length of a look-up, so that no descriptor is held in between, and
/// what the look-up may still read of it.
#[derive(Default)]
pub(super) struct FileSlot {
    source: Mutex<Option<SharedSource>>,
    work_left: AtomicU64,
    exhausted: AtomicBool,
    /// Sections that had to be unpacked whole, by number.
    unpacked: Mutex<HashMap<u32, Arc<[u8]>>>,
    /// The supplementary file that is read in the same look-ups.
    supplement: OnceLock<Arc<FileSlot>>,
}

impl FileSlot {
    /// Lets sections read `source`, `blocks` times from the file, or [`HITS`] times as often from the cache.
    pub(super) fn attach(&self, source: SharedSource, blocks: u64) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = Some(source);
        self.work_left.store(blocks.saturating_mul(HITS), Ordering::Relaxed);
        self.exhausted.store(false, Ordering::Relaxed);
    }

    /// Forgets the file.
    pub(super) fn detach(&self) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.unpacked.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Notes that the file is read together with a supplementary one.
    pub(super) fn supplemented_by(&self, supplement: &Arc<FileSlot>) {
        // It is found once.
        let _known = self.supplement.set(supplement.clone());
    }

    /// What the section `header`, which has `number` and says that it holds `len` bytes, holds.
    fn unpacked(&self, number: u32, header: &Header, len: u64) -> gimli::Result<Arc<[u8]>> {
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = unpacked.get(&number) {
            return Ok(bytes.clone());
        }
        self.spend((len / BLOCK + 1).saturating_mul(HITS))?;
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let source = source.ok_or(gimli::Error::Io)?;
        let bytes: Arc<[u8]> = match elf::unpack(&*source, header, len) {
            Ok(bytes) => bytes.into(),
            Err(ElfError::Read { .. }) => return Err(gimli::Error::Io),
            Err(_) => return Err(gimli::Error::UnexpectedEof(gimli::ReaderOffsetId(0))),
        };
        unpacked.insert(number, bytes.clone());
        Ok(bytes)
    }

    fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
            || self.supplement.get().is_some_and(|other| other.is_exhausted())
    }

    /// What `error` means here: a reader that may not read on says that it could not.
    pub(super) fn refused(&self, error: gimli::Error) -> LinesRefused {
        match error {
            gimli::Error::Io if self.is_exhausted() => LinesRefused::TooMuchWork,
            error => error.into(),
        }
    }

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> gimli::Result<()> {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let source = source.ok_or(gimli::Error::Io)?;
        source.read_exact_at(offset, buffer).map_err(|_| gimli::Error::Io)
    }

    /// Takes `work` off what may be done. Blocks in the cache count too, as it is time that is bounded here.
    fn spend(&self, work: u64) -> gimli::Result<()> {
        let left = self.work_left.load(Ordering::Relaxed);
        let Some(left) = left.checked_sub(work) else {
            self.exhausted.store(true, Ordering::Relaxed);
            return Err(gimli::Error::Io);
        };
        // A module is asked by one thread at a time, so nobody else counts here.
        self.work_left.store(left, Ordering::Relaxed);
        Ok(())
    }
}

/// Blocks from the cache that are as much work as one from the file.
const HITS: u64 = 16;

/// A section of a file, or a part of one.
pub(super) struct Section {
    len: u64,
    contents: Contents,
}

enum Contents {
    Empty,
    InFile { id: u32, offset: u64, file: Arc<FileSlot>, cache: Arc<BlockCache> },
    Compressed { id: u32, inflater: Mutex<Inflater>, file: Arc<FileSlot>, cache: Arc<BlockCache> },
    Whole { id: u32, header: Box<Header>, file: Arc<FileSlot>, cache: Arc<BlockCache> },
    View { of: Arc<Section>, view: View },
}

impl Section {
    /// A section without a byte.
    pub(super) fn empty() -> Self {
        Self { len: 0, contents: Contents::Empty }
    }

    /// `len` bytes of the file from `offset` on.
    pub(super) fn in_file(offset: u64, len: u64, file: Arc<FileSlot>, cache: Arc<BlockCache>) -> Self {
        Self { len, contents: Contents::InFile { id: cache.register(), offset, file, cache } }
    }

    /// What `inflater` inflates.
    pub(super) fn compressed(inflater: Inflater, file: Arc<FileSlot>, cache: Arc<BlockCache>) -> Self {
        let len = inflater.len();
        let inflater = Mutex::new(inflater);
        Self { len, contents: Contents::Compressed { id: cache.register(), inflater, file, cache } }
    }

    /// The compressed section `header`, which can only be unpacked whole, and then has `len` bytes.
    pub(super) fn whole(header: &Header, len: u64, file: Arc<FileSlot>, cache: Arc<BlockCache>) -> Self {
        let header = Box::new(*header);
        Self { len, contents: Contents::Whole { id: cache.register(), header, file, cache } }
    }

    /// `of`, with parts of it hidden.
    pub(super) fn view(of: Arc<Section>, view: View) -> Self {
        Self { len: view.end().min(of.len), contents: Contents::View { of, view } }
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether a reader must look anew after it has skipped something, because what it has at hand may be hidden there.
    pub(super) fn is_view(&self) -> bool {
        matches!(self.contents, Contents::View { .. })
    }

    /// Bytes on the heap that are not in the cache.
    pub(super) fn heap_bytes(&self) -> usize {
        let more = match &self.contents {
            Contents::Empty | Contents::InFile { .. } => 0,
            Contents::Whole { .. } => size_of::<Header>(),
            Contents::Compressed { inflater, .. } => {
                inflater.lock().unwrap_or_else(PoisonError::into_inner).heap_bytes()
            }
            Contents::View { view, .. } => view.heap_bytes(),
        };
        size_of::<Self>() + more
    }

    /// The block that holds the byte at `at`.
    pub(super) fn block(&self, at: u64) -> gimli::Result<Arc<Block>> {
        if at >= self.len {
            return Err(gimli::Error::Io);
        }
        match &self.contents {
            Contents::Empty => Err(gimli::Error::Io),
            Contents::View { of, view } => match view.hidden(at) {
                Some(block) => Ok(block),
                None => of.block(at),
            },
            Contents::InFile { id, offset, file, cache } => {
                file.spend(1)?;
                let index = u32::try_from(at / BLOCK).map_err(|_| gimli::Error::UnsupportedOffset)?;
                if let Some(block) = cache.get(*id, index) {
                    return Ok(block);
                }
                file.spend(HITS)?;
                let start = at - at % BLOCK;
                let mut bytes = vec![0; BLOCK.min(self.len - start) as usize].into_boxed_slice();
                file.read(offset + start, &mut bytes)?;
                let block = Arc::new(Block { start, bytes });
                cache.insert(*id, index, block.clone());
                Ok(block)
            }
            Contents::Whole { id, header, file, cache } => {
                file.spend(1)?;
                let index = u32::try_from(at / BLOCK).map_err(|_| gimli::Error::UnsupportedOffset)?;
                if let Some(block) = cache.get(*id, index) {
                    return Ok(block);
                }
                let whole = file.unpacked(*id, header, self.len)?;
                let start = at - at % BLOCK;
                let bytes = whole.get(start as usize..(start + BLOCK).min(self.len) as usize);
                let bytes = bytes.ok_or(gimli::Error::UnexpectedEof(gimli::ReaderOffsetId(at)))?.into();
                let block = Arc::new(Block { start, bytes });
                cache.insert(*id, index, block.clone());
                Ok(block)
            }
            Contents::Compressed { id, inflater, file, cache } => {
                file.spend(1)?;
                let index = u32::try_from(at / BLOCK).map_err(|_| gimli::Error::UnsupportedOffset)?;
                if let Some(block) = cache.get(*id, index) {
                    return Ok(block);
                }
                let mut inflater = inflater.lock().unwrap_or_else(PoisonError::into_inner);
                // What is inflated on the way is likely to be wanted soon.
                inflater.block(u64::from(index), file, |index, block| {
                    cache.insert(*id, index as u32, block.clone());
                    file.spend(HITS)
                })
            }
        }
    }
}

impl fmt::Debug for Section {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Section({} bytes)", self.len)
    }
}
