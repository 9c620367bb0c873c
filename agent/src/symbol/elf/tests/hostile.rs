//! Broken and hostile files: an error or fewer names, never a panic, never absurd memory or time.

use super::writer::{E_SHNUM, E_SHOFF, FUNC, LOCAL, SECTION_HEADER, SH_SIZE, Symbol, WEAK, Writer, func};
use super::*;
use crate::corruption::{Random, accepted_when_corrupted};

fn small() -> Vec<u8> {
    let mut symtab: Vec<Symbol> = (0..40).map(|n| func("function", 0x1000 + n * 64, 60)).collect();
    symtab.push(func("weak", 0x1000, 0).info(WEAK | FUNC));
    symtab.push(func("local", 0x1010, 8).info(LOCAL | FUNC));
    let mut writer = Writer::new(symtab);
    writer.dynsym = vec![func("alias", 0x1000, 60), func("other", 0x1f00, 0)];
    writer.write()
}

/// Opens the file and asks it everything.
fn exercise(file: &[u8]) -> bool {
    let Ok((image, index)) = open(&file) else { return false };
    for symbol in index.iter() {
        // Names may lie outside the file: that is an error, not a panic.
        let _ = index.name(&file, &symbol);
        let _ = index.lookup(symbol.start);
        let _ = index.lookup(symbol.start.wrapping_add(symbol.size));
    }
    for offset in [0, 0x1000, u64::MAX] {
        image.file_offset_to_address(offset);
    }
    image.section_named(&file, ".text");
    true
}

/// 2,000 files with one to eight bytes changed, header bytes preferred, are all survived within seconds.
#[test]
fn survives_corrupted_bytes() {
    let good = small();
    assert!(exercise(&good));
    let sections_at = usize::try_from(u64::from_le_bytes(good[E_SHOFF..][..8].try_into().unwrap())).unwrap();
    let place = |random: &mut Random| match random.below(3) {
        0 => random.below(64 + 2 * 56),
        1 => sections_at + random.below(good.len() - sections_at),
        _ => random.below(good.len()),
    };
    let opened = accepted_when_corrupted(&good, 2000, place, exercise);
    assert!((100..1900).contains(&opened), "{opened} opened: the changes hit nothing or everything");
}

/// The C library cut at every 1/64 of its length, and the small file at every byte.
#[test]
fn survives_truncation() {
    let libc = std::fs::read(oracle::libc_path()).unwrap();
    for part in 0..64 {
        exercise(&libc[..libc.len() * part / 64]);
    }
    assert!(exercise(&libc));
    let small = small();
    for len in 0..small.len() {
        assert!(!exercise(&small[..len]), "the section headers come last");
    }
}

/// 2^60 sections, claimed through the escape in section 0, are refused before anything is allocated.
#[test]
fn refuses_absurd_section_counts() {
    let mut file = small();
    let sections_at = usize::try_from(u64::from_le_bytes(file[E_SHOFF..][..8].try_into().unwrap())).unwrap();
    file[E_SHNUM..E_SHNUM + 2].fill(0);
    file[sections_at + SH_SIZE..][..8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    let error = open(&file).unwrap_err();
    assert!(matches!(error, ElfError::TooLarge { what: "section header table", .. }), "{error}");
}

/// A symbol table larger than the file is refused, one larger than the limits too.
#[test]
fn refuses_absurd_symbol_tables() {
    let good = small();
    let sections_at = usize::try_from(u64::from_le_bytes(good[E_SHOFF..][..8].try_into().unwrap())).unwrap();
    let size_at = sections_at + 3 * SECTION_HEADER + SH_SIZE;
    for (size, too_large) in [(u64::MAX, true), (good.len() as u64 * 2, false)] {
        let mut file = good.clone();
        file[size_at..][..8].copy_from_slice(&size.to_le_bytes());
        let error = open(&file).unwrap_err();
        assert_eq!(matches!(error, ElfError::TooLarge { .. }), too_large, "{error}");
    }
    let limits = ElfLimits { index_bytes: 12 * 10, ..ElfLimits::default() };
    let image = ElfImage::parse(&good, &limits).unwrap();
    let error = FunctionIndex::build(&good, &image, &limits).unwrap_err();
    assert!(matches!(error, ElfError::TooLarge { limit: 120, .. }), "{error}");
}

/// Files of other kinds are refused by name.
#[test]
fn says_why_other_files_are_not_read() {
    let good = small();
    let with = |at: usize, byte: u8| {
        let mut file = good.clone();
        file[at] = byte;
        open(&file).unwrap_err().to_string()
    };
    assert_eq!(with(0, 0x7e), "not an ELF file");
    assert_eq!(with(4, 1), "unsupported ELF file: not 64-bit");
    assert_eq!(with(5, 2), "unsupported ELF file: not little endian");
    assert_eq!(with(16, 1), "unsupported ELF file: relocatable: its symbols have no addresses");
    assert_eq!(open(&&b""[..]).unwrap_err().to_string(), "not an ELF file");
}

/// A name without an end stops at the end of the string table, a long one at 64 KiB.
#[test]
fn bounds_names() {
    use super::super::table::Strings;
    let source = vec![b'n'; 100_000];
    let endless = Strings::new(&source, 0, 100);
    assert!(endless.read(&source, 0, 1000).is_err());
    assert!(endless.read(&source, 100, 1000).is_err() && endless.read(&source, u64::MAX, 1000).is_err());
    let long = Strings::new(&source, 0, u64::MAX);
    assert_eq!(long.read(&source, 0, Strings::MAX_NAME).unwrap().len(), Strings::MAX_NAME);
    assert_eq!(Strings::new(&source, u64::MAX, u64::MAX).read(&source, 0, 10).unwrap_err().kind(), {
        std::io::ErrorKind::InvalidData
    });
}
