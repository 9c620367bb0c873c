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
