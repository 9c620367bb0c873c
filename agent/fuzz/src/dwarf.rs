//! What is asked of a file's debug information, which may be spread over several files.

use std::sync::Arc;

use agent::symbol::dwarf::{DebugLines, DwarfCache, DwarfLimits, LinesRefused, LinkedFiles, SharedSource};
use agent::symbol::elf::{ElfImage, ElfLimits};

use crate::carrier::{self, COMPRESSED, Section, Shape, TEXT, X86_64};

/// What the caches may take in all.
pub(crate) const BUDGET: usize = 1 << 20;

/// Names of sections, by the lower bits of the byte that a section begins with.
const SECTIONS: [&str; 14] = [
    ".debug_info",
    ".debug_abbrev",
    ".debug_addr",
    ".debug_aranges",
    ".debug_line",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_str",
    ".debug_str_offsets",
    ".debug_cu_index",
    ".debug_tu_index",
    ".debug_loc",
    ".debug_loclists",
];
/// The same in a `.dwo` or `.dwp` file.
const SPLIT_SECTIONS: [&str; 14] = [
    ".debug_info.dwo",
    ".debug_abbrev.dwo",
    ".debug_addr.dwo",
    ".debug_aranges.dwo",
    ".debug_line.dwo",
    ".debug_line_str.dwo",
    ".debug_ranges.dwo",
    ".debug_rnglists.dwo",
    ".debug_str.dwo",
    ".debug_str_offsets.dwo",
    ".debug_cu_index",
    ".debug_tu_index",
    ".debug_loc.dwo",
    ".debug_loclists.dwo",
];

/// Bits of the byte that a section begins with.
mod kind {
    /// Number of its name.
    pub(super) const NAME: u8 = 0xf;
    /// Number of the file that it is in.
    pub(super) const FILE: u8 = 0x30;
    /// It says of itself that it is compressed.
    pub(super) const COMPRESSED: u8 = 0x40;
}

/// Bit of an input's first byte: the reader has small limits.
const SMALL_LIMITS: u8 = 1;

/// Files, by number.
const MAIN: usize = 0;
const SPLIT: usize = 1;
const PACKAGE: usize = 2;
const SUPPLEMENT: usize = 3;

/// Where code of the seeds is: addresses that are asked for.
const ADDRESSES: u64 = 16;
const STEP: u64 = 23;

/// The input: one byte of bits, then sections: a byte that says which, two for the length, the bytes; the last one goes as far
/// as there are any. Whether there was a function.
pub(crate) fn read(input: &[u8], may_be_compressed: bool) -> bool {
    let Some((&variant, sections)) = input.split_first() else { return false };
    let files = Files::of(sections, may_be_compressed);
    let source = files.0[MAIN].clone();
    let (limits, budget) = limits(variant);
    let image = match ElfImage::parse(&*source, &ElfLimits::default()) {
        Ok(image) => image,
        Err(error) => panic!("the carrier is a good file: {error}"),
    };
    let cache = DwarfCache::new(budget, limits);
    let Ok(lines) = DebugLines::open(&*source, &image, &cache) else { return false };
    let mut any = false;
    let mut failures = 0;
    let first = TEXT..TEXT + ADDRESSES * STEP;
    for address in first.step_by(STEP as usize).chain([0, TEXT, TEXT + 1, TEXT - 1, u64::MAX]) {
        let found = lines.lines(source.clone(), &files, address);
        let used = cache.memory_use();
        assert!(used.block_bytes + used.unit_bytes <= budget);
        failures += u64::from(found.is_err());
        assert!(used.refused.iter().sum::<u64>() >= failures, "what was refused is counted by cause");
        let Ok(found) = found else { continue };
        assert!((1..=257).contains(&found.len()), "as deep as real code, and not empty");
        for line in &found {
            assert!(line.function.as_ref().is_none_or(|name| !name.is_empty()));
            assert!(line.file.as_ref().is_none_or(|path| !path.is_empty()));
            any |= line.function.is_some();
        }
        if address == TEXT {
            // The file does not change, so neither does what it says; only how much had to be read differs.
            match lines.lines(source.clone(), &files, address) {
                Ok(again) => assert_eq!(again, found),
                Err(cause) => assert_eq!(cause, LinesRefused::TooMuchWork),
            }
        }
    }
    assert!(lines.heap_bytes() <= limits.index_bytes + 16 * 44 * 1024 * 16);
    any
}

/// Files of a few KiB need no more; or so little that the limits are reached.
fn limits(variant: u8) -> (DwarfLimits, usize) {
    let limits = DwarfLimits { index_blocks: 1 << 10, lookup_blocks: 1 << 8, ..DwarfLimits::new(1 << 20) };
    if variant & SMALL_LIMITS == 0 {
        return (DwarfLimits { index_bytes: 64 << 10, unit_bytes: 1 << 20, ..limits }, BUDGET);
    }
    let small = DwarfLimits {
        units: 4,
        index_bytes: 64,
        unit_bytes: 512,
        index_blocks: 4,
        lookup_blocks: 4,
        ..limits
    };
    (small, 32 << 10)
}

/// The module, the file of a split unit, a package of such, the supplementary file.
struct Files([Arc<Vec<u8>>; 4]);

impl Files {
    fn of(mut input: &[u8], may_be_compressed: bool) -> Self {
        let mut sections: [Vec<Section<'_>>; 4] = Default::default();
        while let &[kind, low, high, ref rest @ ..] = input {
            let (body, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes([low, high]))));
            input = rest;
            let file = usize::from((kind & kind::FILE) >> 4);
            let is_split = matches!(file, SPLIT | PACKAGE);
            let names = if is_split { &SPLIT_SECTIONS } else { &SECTIONS };
            let name = names.get(usize::from(kind & kind::NAME));
            if let (Some(sections), Some(name)) = (sections.get_mut(file), name) {
                let is_compressed = may_be_compressed && kind & kind::COMPRESSED != 0;
                let flags = if is_compressed { COMPRESSED } else { 0 };
                sections.push(Section { flags, ..Section::new(name, body) });
            }
        }
        if !sections[SUPPLEMENT].is_empty() {
            sections[MAIN].push(Section::new(".gnu_debugaltlink", b"/supplement\0\x01"));
        }
        let shape = Shape { machine: X86_64, loaded_at: None, headers: true };
        Self(sections.map(|sections| Arc::new(carrier::carry(shape, &sections))))
    }

    /// File number `index`, if it has any section.
    fn get(&self, index: usize) -> Option<SharedSource> {
        let file = self.0.get(index)?.clone();
        let least = carrier::carry(Shape { machine: X86_64, loaded_at: None, headers: true }, &[]).len();
        (file.len() > least).then_some(file as SharedSource)
    }
}

impl LinkedFiles for Files {
    fn package(&self) -> Option<(Arc<str>, SharedSource)> {
        Some(("/module.dwp".into(), self.get(PACKAGE)?))
    }

    fn open(&self, _path: &str) -> Option<SharedSource> {
        self.get(SPLIT)
    }

    fn supplement(&self) -> Option<SharedSource> {
        self.get(SUPPLEMENT)
    }
}
