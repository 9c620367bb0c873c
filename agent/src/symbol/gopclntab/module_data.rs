//! The runtime's description of the program (`runtime.moduledata`), which no header leads to: it is found by its first words, which
//! are where the tables and their parts lie.
//!
//! A position independent program may have them only in its relocations, where the addend is the address.

use object::LittleEndian as LE;
use object::elf::{
    EM_AARCH64, EM_X86_64, Machine, R_AARCH64_RELATIVE, R_X86_64_RELATIVE, Rela64, SHF_ALLOC, SHT_RELA,
};
use object::pod;

use super::find::{data_segments, search_segment};
use super::header::{Extent, Header, Layout};
use super::{GoLimits, GoTableError};
use crate::symbol::elf::ElfImage;
use crate::symbol::read_at::ReadAt;

/// Words that are looked at. What is wanted is among the first forty or so.
const WORDS: usize = 56;
/// Places that point to the tables and are looked at, in relocations.
const MAX_CANDIDATES: usize = 8;
/// Bytes by which two ends of the text may differ.
const MAX_PADDING: u64 = 4096;
/// Relocations read at a time.
const CHUNK: usize = 4096;

/// Words' places in all versions from Go 1.16 on.
mod place {
    /// Pointers to parts of the tables.
    pub(super) const NAMES: usize = 1;
    pub(super) const UNITS: usize = 4;
    pub(super) const FILES: usize = 7;
    pub(super) const PC_VALUES: usize = 10;
    pub(super) const FUNCTAB: usize = 16;
    pub(super) const TEXT: usize = 22;
    pub(super) const TEXT_END: usize = 23;
    /// The first word that moved between versions.
    pub(super) const LATER: usize = 32;
}

/// What is taken from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ModuleData {
    /// Address of the text.
    pub(super) text: u64,
    /// Address that offsets of functions' further tables count from (`go:func.*`), if it was found.
    pub(super) func_data: Option<u64>,
}

struct Finder<'a> {
    source: &'a dyn ReadAt,
    image: &'a ElfImage,
    table: Extent,
    header: &'a Header,
}

impl ModuleData {
    /// Searches for the description that belongs to the tables at `table`.
    pub(super) fn find(
        source: &dyn ReadAt,
        image: &ElfImage,
        table: Extent,
        header: &Header,
        limits: &GoLimits,
    ) -> Result<Option<Self>, GoTableError> {
        let finder = Finder { source, image, table, header };
        match finder.in_data(limits)? {
            Some(found) => Ok(Some(found)),
            None => finder.in_relocations(limits),
        }
    }
}

impl Finder<'_> {
    fn in_data(&self, limits: &GoLimits) -> Result<Option<ModuleData>, GoTableError> {
        let mut left = limits.search_bytes;
        let first = self.table.address.to_le_bytes();
        // Data that is written comes last.
        for segment in data_segments(self.image).rev() {
            let found = search_segment(self.source, segment, (8, 8 * WORDS), &mut left, |_, bytes| {
                if !bytes.starts_with(&first) {
                    return None;
                }
                self.check(&words_of(bytes))
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Takes the words at each place that is to be relocated to the tables' address.
    fn in_relocations(&self, limits: &GoLimits) -> Result<Option<ModuleData>, GoTableError> {
        let mut candidates = Vec::new();
        self.relocations(limits, |offset, addend| {
            if addend == self.table.address && candidates.len() < MAX_CANDIDATES {
                candidates.push((offset, [0; WORDS]));
            }
        })?;
        if candidates.is_empty() {
            return Ok(None);
        }
        for (address, words) in &mut candidates {
            if let Some(file_offset) = self.file_offset(*address) {
                let mut bytes = [0; 8 * WORDS];
                if self.source.read_exact_at(file_offset, &mut bytes).is_ok() {
                    *words = words_of(&bytes);
                }
            }
        }
        self.relocations(limits, |offset, addend| {
            for (address, words) in &mut candidates {
                let word = offset.checked_sub(*address).and_then(|into| words.get_mut((into / 8) as usize));
                if let Some(word) = word {
                    *word = addend;
                }
            }
        })?;
        Ok(candidates.iter().find_map(|(_, words)| self.check(words)))
    }

    /// Calls `visit` with place and addend of each relocation that adds the load bias.
    fn relocations(&self, limits: &GoLimits, mut visit: impl FnMut(u64, u64)) -> Result<(), GoTableError> {
        let Some(relative) = relative(self.image.machine()) else { return Ok(()) };
        let size = size_of::<Rela64<LE>>() as u64;
        let loaded = |flags: u64| flags & SHF_ALLOC.0 != 0;
        let sections = self.image.sections().iter();
        let mut left = limits.relocation_bytes;
        for section in sections.filter(|section| section.kind == SHT_RELA && loaded(section.flags.0)) {
            let len = section.size.min(left).min(self.source.len().saturating_sub(section.file_offset));
            left -= len;
            let mut chunk = Vec::new();
            let mut at = 0;
            while at + size <= len {
                let count = ((len - at) / size).min(CHUNK as u64);
                chunk.resize((count * size) as usize, 0);
                self.source.read_exact_at(section.file_offset.saturating_add(at), &mut chunk)?;
                at += count * size;
                for bytes in chunk.chunks_exact(size as usize) {
                    let Ok((relocation, _)) = pod::from_bytes::<Rela64<LE>>(bytes) else { continue };
                    if relocation.r_info.get(LE) & 0xffff_ffff == relative {
                        visit(relocation.r_offset.get(LE), relocation.r_addend.get(LE) as u64);
                    }
                }
            }
        }
        Ok(())
    }

    /// What `words` say, if they describe the program of these tables.
    fn check(&self, words: &[u64; WORDS]) -> Option<ModuleData> {
        let Extent { address, .. } = self.table;
        let is_part = |place: usize, offset: u64| words[place] == address.wrapping_add(offset);
        let header = self.header;
        let fits = words[0] == address
            && is_part(place::NAMES, header.names)
            && is_part(place::UNITS, header.units)
            && is_part(place::FILES, header.files)
            && is_part(place::PC_VALUES, header.pc_values)
            && is_part(place::FUNCTAB, header.functab)
            && words[place::TEXT] < words[place::TEXT_END]
            && (header.text == 0 || header.text == words[place::TEXT]);
        if !fits || header.layout == Layout::Go116 && words[place::TEXT] == 0 {
            return None;
        }
        Some(ModuleData { text: words[place::TEXT], func_data: self.func_data(words) })
    }

    /// The list of the text's sections stands right behind: by it the word is told, because versions of Go have moved it.
    fn func_data(&self, words: &[u64; WORDS]) -> Option<u64> {
        let [text, end] = [words[place::TEXT], words[place::TEXT_END]];
        let is_list = |at: usize| {
            let [list, len, room] = [words[at], words[at + 1], words[at + 2]];
            let first = || -> Option<[u64; 3]> {
                let mut bytes = [0; 24];
                self.source.read_exact_at(self.file_offset(list)?, &mut bytes).ok()?;
                let word = |index: usize| bytes.get(8 * index..)?.first_chunk::<8>().copied();
                Some([0, 1, 2].map(|index| word(index).map_or(0, u64::from_le_bytes)))
            };
            // An address that only the loader fills in is 0.
            (1..=64).contains(&len)
                && len == room
                && first().is_some_and(|[start, length, base]| {
                    // The text's end is aligned in one of the two, and in which depends on the version.
                    start == 0 && length.abs_diff(end - text) < MAX_PADDING && (base == text || base == 0)
                })
        };
        let list = (place::LATER + 2..WORDS - 3).find(|&at| is_list(at))?;
        let [before, last] = [words[list - 2], words[list - 1]];
        // From Go 1.26 on the further tables lie within these, whose end stands between.
        let is_inside = before > self.table.address && before <= last;
        Some(if is_inside { before } else { last })
    }

    fn file_offset(&self, address: u64) -> Option<u64> {
        file_offset(self.image, address)
    }
}

/// Where the byte at `address` is in the file.
pub(super) fn file_offset(image: &ElfImage, address: u64) -> Option<u64> {
    data_segments(image).find_map(|segment| {
        let into = address.checked_sub(segment.address).filter(|&into| into < segment.file_size)?;
        segment.file_offset.checked_add(into)
    })
}

fn words_of(bytes: &[u8]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = bytes.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    }
    words
}

/// The machine's type of relocation that adds the load bias to the addend.
fn relative(machine: Machine) -> Option<u64> {
    match machine {
        EM_X86_64 => Some(u64::from(R_X86_64_RELATIVE.0)),
        EM_AARCH64 => Some(u64::from(R_AARCH64_RELATIVE.0)),
        _ => None,
    }
}
