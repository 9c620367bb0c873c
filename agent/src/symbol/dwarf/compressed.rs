//! Compressed sections (ELF gABI, "Section Compression") read from the middle, as Debian's debug files have them.
//!
//! A zlib stream can only be inflated from its beginning, or from a state that was saved on the way: the decoder and the 32 KiB
//! of output that it may refer to. A few saved states, 42 KiB each, make any block of a section of megabytes a millisecond's work,
//! where inflating the section whole would take its whole size.
//!
//! A zstd stream refers back by megabytes, so saved states are no help. Sections compressed by zstd are unpacked whole, for the length
//! of a look-up, if all of a file's together are within [`DwarfLimits::unpacked_bytes`].
//!
//! [`DwarfLimits::unpacked_bytes`]: super::DwarfLimits::unpacked_bytes

use std::fmt;
use std::sync::Arc;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_PARSE_ZLIB_HEADER};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress_with_limit};
use object::elf::{CompressionType, ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD};

use super::blocks::{BLOCK, Block};
use super::refused::LinesRefused;
use super::section::FileSlot;
use crate::symbol::elf::Section as Header;
use crate::symbol::read_at::ReadAt;

/// Bytes of `Elf64_Chdr`: type, reserved, size and alignment of what was compressed.
const CHDR: u64 = 24;
/// What deflate may refer back to.
const WINDOW: usize = 32 << 10;
/// Least distance of saved states.
const MIN_INTERVAL: u64 = 256 << 10;
/// Saved states of a section.
const MAX_STATES: u64 = 16;
/// Most that deflate can shrink: 258 bytes to two bits.
const MAX_RATIO: u64 = 1032;
/// Compressed bytes read at once.
const CHUNK: u64 = 16 << 10;

/// How a compressed section can be read.
pub(super) enum Compressed {
    /// From the middle.
    Zlib(Inflater),
    /// Whole: so many bytes.
    Zstd(u64),
}

impl Compressed {
    /// Reads what the compressed section `header` says of itself.
    ///
    /// # Errors
    /// When it is neither zlib nor zstd, or states a length that it cannot have.
    pub(super) fn open(source: &dyn ReadAt, header: &Header) -> Result<Self, LinesRefused> {
        let compressed = header.size.checked_sub(CHDR).ok_or(LinesRefused::Malformed)?;
        let mut chdr = [0; CHDR as usize];
        source.read_exact_at(header.file_offset, &mut chdr).map_err(|_| LinesRefused::Unreadable)?;
        let &[a, b, c, d, _, _, _, _, ref rest @ ..] = &chdr;
        let len = rest.first_chunk().map_or(0, |len| u64::from_le_bytes(*len));
        match CompressionType(u32::from_le_bytes([a, b, c, d])) {
            ELFCOMPRESS_ZLIB if len / MAX_RATIO > compressed => Err(LinesRefused::Malformed),
            ELFCOMPRESS_ZLIB => Ok(Self::Zlib(Inflater::new(header, compressed, len))),
            ELFCOMPRESS_ZSTD => Ok(Self::Zstd(len)),
            _ => Err(LinesRefused::Compression),
        }
    }
}

/// A zlib stream with a few states from which it can be gone on with.
pub(super) struct Inflater {
    file_offset: u64,
    compressed: u64,
    len: u64,
    interval: u64,
    saved: Vec<State>,
    last: Option<State>,
}

#[derive(Clone)]
struct State {
    decoder: Box<DecompressorOxide>,
    window: Box<[u8]>,
    /// Compressed bytes taken.
    taken: u64,
    /// Bytes given.
    given: u64,
}

impl Inflater {
    /// Of `compressed` bytes in the section `header`, which hold `len`.
    fn new(header: &Header, compressed: u64, len: u64) -> Self {
        let interval = (len / MAX_STATES).next_multiple_of(BLOCK).max(MIN_INTERVAL);
        let file_offset = header.file_offset.saturating_add(CHDR);
        Self { file_offset, compressed, len, interval, saved: Vec::new(), last: None }
    }

    /// Length of what was compressed.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let states = self.saved.len() + usize::from(self.last.is_some());
        states * (WINDOW + size_of::<DecompressorOxide>() + size_of::<State>())
    }

    /// Block number `index`. `passed` gets it and all blocks inflated on the way, and may refuse to go on.
    pub(super) fn block(
        &mut self,
        index: u64,
        file: &FileSlot,
        mut passed: impl FnMut(u64, &Arc<Block>) -> gimli::Result<()>,
    ) -> gimli::Result<Arc<Block>> {
        let mut state = self.state_before(index * BLOCK);
        let mut input = Input { at: 0, bytes: Vec::new() };
        loop {
            let start = state.given;
            let bytes = self.inflate_block(&mut state, &mut input, file)?;
            let block = Arc::new(Block { start, bytes });
            if state.given.is_multiple_of(self.interval)
                && state.given / self.interval == self.saved.len() as u64 + 1
                && state.given < self.len
            {
                self.saved.push(state.clone());
            }
            passed(start / BLOCK, &block)?;
            if start / BLOCK == index {
                self.last = (state.given < self.len).then_some(state);
                return Ok(block);
            }
        }
    }

    /// The nearest state that has not yet given the byte at `offset`.
    fn state_before(&mut self, offset: u64) -> State {
        let last = self.last.take_if(|last| last.given <= offset);
        let saved = self.saved.iter().rev().find(|saved| saved.given <= offset);
        match (last, saved) {
            (Some(last), Some(saved)) if last.given < saved.given => saved.clone(),
            (Some(last), _) => last,
            (None, Some(saved)) => saved.clone(),
            (None, None) => State::new(),
        }
    }

    fn inflate_block(
        &self,
        state: &mut State,
        input: &mut Input,
        file: &FileSlot,
    ) -> gimli::Result<Box<[u8]>> {
        let start = state.given;
        let end = (start + BLOCK).min(self.len);
        while state.given < end {
            let bytes = input.at(state.taken, self, file)?;
            let at = state.given as usize % WINDOW;
            // A block ends within the window or with it, as its size divides the window's.
            let room = (end - state.given) as usize;
            let more = state.taken + (bytes.len() as u64) < self.compressed;
            let flags = TINFL_FLAG_PARSE_ZLIB_HEADER | if more { TINFL_FLAG_HAS_MORE_INPUT } else { 0 };
            let (status, taken, given) =
                decompress_with_limit(&mut state.decoder, bytes, &mut state.window, at, room, flags);
            state.taken += taken as u64;
            state.given += given as u64;
            let stuck = taken == 0 && given == 0;
            let over = matches!(status, TINFLStatus::Done) && state.given < end;
            if (status as i32) < 0 || stuck || over {
                return Err(gimli::Error::UnexpectedEof(gimli::ReaderOffsetId(state.given)));
            }
        }
        let from = start as usize % WINDOW;
        let bytes = state.window.get(from..from + (end - start) as usize).ok_or(gimli::Error::Io)?;
        Ok(bytes.into())
    }
}

impl State {
    fn new() -> Self {
        let window = vec![0; WINDOW].into_boxed_slice();
        Self { decoder: Box::default(), window, taken: 0, given: 0 }
    }
}

/// Compressed bytes at hand.
struct Input {
    at: u64,
    bytes: Vec<u8>,
}

impl Input {
    /// What is at hand from `taken` on; nothing at the end.
    fn at(&mut self, taken: u64, of: &Inflater, file: &FileSlot) -> gimli::Result<&[u8]> {
        let within = taken.checked_sub(self.at).is_some_and(|into| into < self.bytes.len() as u64);
        if !within {
            self.at = taken;
            self.bytes.resize(CHUNK.min(of.compressed - taken.min(of.compressed)) as usize, 0);
            file.read(of.file_offset.saturating_add(taken), &mut self.bytes)?;
        }
        Ok(self.bytes.get((taken - self.at) as usize..).unwrap_or_default())
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Inflater({} of {} bytes)", self.compressed, self.len)
    }
}
