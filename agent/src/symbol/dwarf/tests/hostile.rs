//! Broken files: whatever the bytes are, there is an answer, soon, and nothing panics.

use std::sync::Arc;

use super::files::{self, Opened, Random};
use crate::symbol::dwarf::{DwarfCache, DwarfLimits, LinesRefused, SharedSource};

/// Corrupted copies of each program.
const COPIES: usize = 60;
/// Addresses that are asked of each copy.
const QUESTIONS: usize = 24;

/// Seeded corruption of every debug section: bytes, runs of 0 and of 0xff, and lengths that are off by a little.
#[test]
fn corrupted_sections() {
    let directory = tempfile::tempdir().unwrap();
    let mut answers = [0; LinesRefused::ALL.len() + 1];
    for options in [["-gdwarf-4", "-gz=none"], ["-gdwarf-5", "-gz=none"], ["-gdwarf-5", "-gz=zlib"]] {
        let command = ["gcc", "-O2", options[0], options[1]];
        let source = "#include <stdlib.h>\nstatic inline int f(int x) { return x * rand(); }\n\
                      int g(int x) { return f(x) + f(x + 1); }\nint main(int c, char **v) { return g(c) + atoi(v[0]); }\n";
        let Some(path) = files::compile(directory.path(), &command, ("small.c", source), "small") else {
            return;
        };
        let whole = Opened::new(&path);
        let covered = whole.addresses(4096).into_iter().filter(|address| whole.lines(*address).is_ok());
        let addresses: Vec<u64> = covered.take(QUESTIONS).collect();
        let bytes = std::fs::read(&path).unwrap();
        let sections: Vec<_> = whole
            .image
            .sections()
            .iter()
            .filter(|section| !section.is_code() && section.address == 0 && section.size > 0)
            .collect();
        let mut random = Random(options[0].len() as u64 + 0x1234_5678);
        for _ in 0..COPIES {
            let mut bytes = bytes.clone();
            for _ in 0..=random.below(6) {
                let section = sections[random.below(sections.len() as u64) as usize];
                let at = (section.file_offset + random.below(section.size)) as usize;
                corrupt(&mut bytes[at..], &mut random);
            }
            let cache =
                DwarfCache::new(2 << 20, DwarfLimits { lookup_blocks: 1000, ..DwarfLimits::new(1 << 30) });
            let source: SharedSource = Arc::new(bytes);
            let opened = match Opened::from_source(&path, source, cache) {
                Ok(opened) => opened,
                Err(cause) => {
                    answers[cause as usize] += 1;
                    continue;
                }
            };
            for &address in &addresses {
                match opened.lines(address) {
                    Ok(_) => answers[LinesRefused::ALL.len()] += 1,
                    Err(cause) => answers[cause as usize] += 1,
                }
            }
            let usage = opened.cache.memory_use();
            assert!(usage.block_bytes + usage.unit_bytes <= 2 << 20);
        }
    }
    println!("{answers:?}");
    assert!(
        answers[LinesRefused::ALL.len()] > 0 && answers[LinesRefused::Malformed as usize] > 0,
        "{answers:?}"
    );
}

fn corrupt(bytes: &mut [u8], random: &mut Random) {
    match random.below(4) {
        0 => bytes[0] = random.below(256) as u8,
        1 => bytes[0] = bytes[0].wrapping_add(1),
        2 => bytes.iter_mut().take(random.below(16) as usize).for_each(|byte| *byte = 0xff),
        _ => bytes.iter_mut().take(random.below(16) as usize).for_each(|byte| *byte = 0),
    }
}

/// Inlined functions nested without end are refused, and do not overflow the stack of a library that follows them by recursion.
#[test]
fn endless_nesting() {
    let (info, abbreviations) = nested_unit(200_000);
    let file = elf_with(&[(".debug_info", &info), (".debug_abbrev", &abbreviations)]);
    let cache = DwarfCache::new(64 << 20, DwarfLimits::new(1 << 30));
    let opened = Opened::from_source("nested".as_ref(), Arc::new(file), cache).unwrap();
    assert_eq!(opened.lines(TEXT + 1).err(), Some(LinesRefused::UnitTooLarge));

    // What is nested as real code is works.
    let (info, abbreviations) = nested_unit(20);
    let file = elf_with(&[(".debug_info", &info), (".debug_abbrev", &abbreviations)]);
    let cache = DwarfCache::new(1 << 20, DwarfLimits::new(1 << 30));
    let opened = Opened::from_source("nested".as_ref(), Arc::new(file), cache).unwrap();
    assert_eq!(opened.lines(TEXT + 1).unwrap().len(), 21);
}

/// Units that are referred to share their abbreviations in memory as in the file; where each has a table of its own there is an end.
#[test]
fn many_units_referred_to() {
    const UNITS: usize = 40;
    let answer = |tables: usize| {
        let table = [[ROOT, FUNCTION, REFERENCE, LEAF_ROOT, LEAF].concat(), padding(600)].concat();
        // Distinct offsets, each with all of the table.
        let unit = |number: usize| unit(number % tables * table.len(), &[5, 6, b'n', 0, 0]);
        let entries = |base: usize| {
            let each = unit(0).len();
            let reference = |number: usize| {
                [pc(4).as_slice(), &((base + number * each + 12) as u32).to_le_bytes()].concat()
            };
            let references: Vec<u8> = (0..UNITS).flat_map(reference).collect();
            [pc(1).as_slice(), &pc(2), b"f\0", &references, &[0, 0]].concat()
        };
        let base = self::unit(0, &entries(0)).len();
        let info = [self::unit(0, &entries(base)), (0..UNITS).flat_map(unit).collect()].concat();
        let file = elf_with(&[(".debug_info", &info), (".debug_abbrev", &table.repeat(tables))]);
        let cache = DwarfCache::new(1 << 20, DwarfLimits::new(1 << 30));
        let opened = Opened::from_source("many".as_ref(), Arc::new(file), cache).unwrap();
        opened.lines(TEXT + 1)
    };
    let shared = answer(1).unwrap();
    let names: Vec<_> = shared.iter().map(|line| line.function.as_deref()).collect();
    assert_eq!(names, [Some("n"), Some("f")]);
    assert_eq!(answer(UNITS).err(), Some(LinesRefused::UnitTooLarge));
}

/// A unit whose root has more ranges than there is room for is refused.
#[test]
fn many_ranges_of_a_root() {
    let answer = |count: usize| {
        // `DW_AT_ranges` as `DW_FORM_sec_offset`.
        let table = abbreviations(&[
            &[1, 0x11, 1, 0x11, 1, 0x55, 0x17, 0, 0],
            &[2, 0x2e, 0, 0x11, 1, 0x12, 6, 3, 8, 0, 0],
        ]);
        let root = [&[1][..], &TEXT.to_le_bytes(), &[0; 4]].concat();
        let info = unit(0, &[root.as_slice(), &pc(2), b"f\0\0"].concat());
        let range = [0_u64, 16].map(u64::to_le_bytes).concat();
        let ranges = [range.repeat(count), vec![0; 16]].concat();
        let sections = [(".debug_info", &*info), (".debug_abbrev", &table), (".debug_ranges", &ranges)];
        let cache = DwarfCache::new(1 << 20, DwarfLimits::new(1 << 30));
        let opened = Opened::from_source("ranges".as_ref(), Arc::new(elf_with(&sections)), cache).unwrap();
        opened.lines(TEXT + 1)
    };
    assert_eq!(answer(100).unwrap().len(), 1);
    assert_eq!(answer(20_000).err(), Some(LinesRefused::UnitTooLarge));
}

/// Sets of addresses behind a broken one are not there, but units say themselves what they cover.
#[test]
fn broken_sets_of_addresses() {
    let (info, abbreviations) = nested_unit(1);
    let sets = [0xff; 64];
    let sections = [(".debug_info", &*info), (".debug_abbrev", &abbreviations), (".debug_aranges", &sets)];
    let cache = DwarfCache::new(1 << 20, DwarfLimits::new(1 << 30));
    let opened = Opened::from_source("sets".as_ref(), Arc::new(elf_with(&sections)), cache).unwrap();
    assert_eq!(opened.lines(TEXT + 1).unwrap().len(), 2);
}

/// Abbreviations: code, tag, has children, attributes with forms. A unit and a function with code, of a name; an inlined function that
/// is declared elsewhere (`DW_AT_abstract_origin` as `DW_FORM_ref_addr`); a unit and a function without code.
const ROOT: &[u8] = &[1, 0x11, 1, 0x11, 1, 0x12, 6, 0, 0];
const FUNCTION: &[u8] = &[2, 0x2e, 1, 0x11, 1, 0x12, 6, 3, 8, 0, 0];
const REFERENCE: &[u8] = &[4, 0x1d, 0, 0x11, 1, 0x12, 6, 0x31, 0x10, 0, 0];
const LEAF_ROOT: &[u8] = &[5, 0x11, 1, 0, 0];
const LEAF: &[u8] = &[6, 0x2e, 0, 3, 8, 0, 0];

fn abbreviations(all: &[&[u8]]) -> Vec<u8> {
    [all.concat(), vec![0]].concat()
}

/// Abbreviations that nothing uses, and the end of the table.
fn padding(count: u16) -> Vec<u8> {
    let each = |index: u16| {
        let code = 128 + index;
        [(code & 0x7f) as u8 | 0x80, (code >> 7) as u8, 0x34, 0, 0, 0]
    };
    (0..count).flat_map(each).chain([0]).collect()
}

/// Entry `code` with a range of code.
fn pc(code: u8) -> Vec<u8> {
    [&[code][..], &TEXT.to_le_bytes(), &16_u32.to_le_bytes()].concat()
}

/// A unit of DWARF 4 whose abbreviations are at `table`.
fn unit(table: usize, entries: &[u8]) -> Vec<u8> {
    let length = (entries.len() + 7) as u32;
    [&length.to_le_bytes()[..], &[4, 0], &(table as u32).to_le_bytes(), &[8], entries].concat()
}

const TEXT: u64 = 0x1000;

/// A unit with one function in which `depth` inlined functions are nested.
fn nested_unit(depth: usize) -> (Vec<u8>, Vec<u8>) {
    let range = |code: u8| {
        let mut entry = vec![code];
        entry.extend(TEXT.to_le_bytes());
        entry.extend(16u32.to_le_bytes());
        entry
    };
    let mut entries = [range(1), range(2)].concat();
    for _ in 0..depth {
        entries.extend(range(3));
    }
    entries.extend(vec![0; depth + 2]);
    // DWARF 4, §7.5.1.1: version, abbreviations, size of an address.
    let mut unit = vec![4, 0, 0, 0, 0, 0, 8];
    unit.extend(entries);
    let mut info = (unit.len() as u32).to_le_bytes().to_vec();
    info.extend(unit);
    // Code, tag (compile unit, subprogram, inlined subroutine), has children, low_pc as an address, high_pc as a length.
    let abbreviation = |code, tag| [code, tag, 1, 0x11, 0x01, 0x12, 0x06, 0, 0];
    let abbreviations = [abbreviation(1, 0x11), abbreviation(2, 0x2e), abbreviation(3, 0x1d)].concat();
    (info, [abbreviations, vec![0]].concat())
}

/// Where the sections of [`elf_with`] begin: behind the file header and one program header.
const BODY: usize = 64 + 56;

/// An ELF file with one executable segment at [`TEXT`] and these sections.
fn elf_with(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut names = vec![0];
    let mut bodies = Vec::new();
    let mut headers = vec![[0u8; 64]];
    let header = |name: usize, kind: u32, offset: usize, size: usize| {
        let mut header = [0; 64];
        header[..4].copy_from_slice(&(name as u32).to_le_bytes());
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
        header
    };
    for (name, body) in sections {
        headers.push(header(names.len(), 1, BODY + bodies.len(), body.len()));
        names.extend(name.as_bytes());
        names.push(0);
        bodies.extend_from_slice(body);
    }
    headers.push(header(names.len(), 3, BODY + bodies.len(), names.len() + 7));
    names.extend(b".names\0");
    bodies.extend(&names);
    let mut file = vec![0; 64];
    file[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    for (at, value) in
        [(16, 2u16), (18, 62), (52, 64), (54, 56), (56, 1), (58, 64), (60, headers.len() as u16)]
    {
        file[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    file[62..64].copy_from_slice(&(headers.len() as u16 - 1).to_le_bytes());
    file[32..40].copy_from_slice(&64u64.to_le_bytes());
    file[40..48].copy_from_slice(&((BODY + bodies.len()) as u64).to_le_bytes());
    let mut program = [0; 56];
    program[..4].copy_from_slice(&1u32.to_le_bytes());
    program[4..8].copy_from_slice(&5u32.to_le_bytes());
    program[16..24].copy_from_slice(&TEXT.to_le_bytes());
    program[40..48].copy_from_slice(&0x1000u64.to_le_bytes());
    file.extend(program);
    file.extend(bodies);
    file.extend(headers.concat());
    file
}
