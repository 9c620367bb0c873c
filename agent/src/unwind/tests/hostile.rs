//! Broken and malicious files: they cost bounded time, and nobody panics.

use std::time::{Duration, Instant};

use agent_ebpf::rule::TEXT_PAGE;

use super::super::{Architecture, CfiIndex, CfiLimits, Registers, build_page, full_step};
use super::files;
use super::writer::{CFI, Function, Shape, TEXT, TEXT_END, first_page, function, open, write};
use crate::corruption::{Random, accepted_when_corrupted};
use crate::symbol::elf::{ElfImage, ElfLimits};

/// Functions with every kind of CFI instruction.
fn rich() -> Vec<Function> {
    let programs: [&[u8]; 6] = [
        &[0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x4c, 0x0c, 7, 8, 0xc6],
        &[0x0a, 0x0f, 3, 0x77, 24, 6, 0x41, 0x0b, 0x2e, 16],
        &[0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22],
        &[0x10, 6, 2, 0x76, 0, 0x02, 9, 0x0f, 3, 0x76, 0x78, 6],
        &[0x16, 3, 2, 0x77, 8, 0x14, 12, 2, 0x11, 13, 0x7f, 0x09, 14, 5],
        &[0x07, 16],
    ];
    let at = |n: usize| TEXT + 0x40 * n as u64;
    programs
        .iter()
        .enumerate()
        .map(|(n, program)| Function { signal: n == 4, ..function(at(n), 0x30, program) })
        .collect()
}

/// Opens the file and asks it everything. Whether it could be opened.
fn exercise(file: &[u8]) -> bool {
    let file = &file;
    let Ok(image) = ElfImage::parse(file, &ElfLimits::default()) else { return false };
    let Ok(index) = CfiIndex::open(file, &image, &CfiLimits::default()) else { return false };
    for page in 0..=TEXT_END / TEXT_PAGE {
        if let Ok(page) = build_page(file, &index, &image, page) {
            assert!(page.rows.first().is_none_or(|row| row.0 == 0));
            assert!(page.rows.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 != two[1].1));
            assert!(page.stats.bad_fdes <= page.stats.fdes);
        }
    }
    let mut registers = Registers::new(Architecture::X86_64, TEXT);
    for register in 0..16 {
        registers.set(register, Some(0x7fff_0000 + u64::from(register) * 64));
    }
    for address in [0, u64::MAX].into_iter().chain((TEXT..TEXT + 0x180).step_by(7)) {
        let _ = full_step(file, &index, address, 0, &registers, |address| Some(address.wrapping_add(64)));
    }
    true
}

/// 12,000 files with one to eight bytes of CFI changed are all survived within seconds.
#[test]
fn survives_corrupted_bytes() {
    for shape in [Shape::Header, Shape::HeaderWithoutTable, Shape::EhFrame, Shape::DebugFrame(4)] {
        let good = write(&rich(), shape);
        assert!(exercise(&good));
        let place = |random: &mut Random| CFI as usize + random.below(good.len() - CFI as usize);
        let opened = accepted_when_corrupted(&good, 3000, place, exercise);
        assert!((300..3000).contains(&opened), "{opened} opened: the changes hit nothing or everything");
    }
}

/// The same with the C library's CFI, of which each time a few pages are built.
#[test]
fn survives_a_corrupted_c_library() {
    let mut file = std::fs::read(files::libc()).unwrap();
    let image = ElfImage::parse(&file, &ElfLimits::default()).unwrap();
    let ranges: Vec<_> = [".eh_frame_hdr", ".eh_frame"]
        .map(|name| *image.section_named(&file, name).unwrap())
        .map(|section| section.file_offset as usize..(section.file_offset + section.size) as usize)
        .to_vec();
    let text = image.text_segment().unwrap();
    let pages = text.file_offset / TEXT_PAGE..(text.file_offset + text.file_size) / TEXT_PAGE;
    let mut random = Random::new(7);
    let (mut bad, mut failed) = (0, 0);
    for _ in 0..300 {
        for change in 0..500 {
            let range = &ranges[usize::from(change != 0)];
            let at = range.start + random.below(range.len());
            file[at] = random.below(256) as u8;
        }
        let Ok(index) = CfiIndex::open(&file, &image, &CfiLimits::default()) else {
            failed += 1;
            continue;
        };
        for _ in 0..4 {
            let page = pages.start + random.below((pages.end - pages.start) as usize) as u64;
            match build_page(&file, &index, &image, page) {
                Ok(page) => bad += page.stats.bad_fdes,
                Err(_) => failed += 1,
            }
        }
    }
    println!("{bad} bad FDEs, {failed} pages or files refused");
    assert!(bad > 200 && failed < 1000, "{bad} bad FDEs: nothing was broken");
}

/// The small files cut at every byte of their CFI.
#[test]
fn survives_truncation() {
    for shape in [Shape::Header, Shape::HeaderWithoutTable] {
        let good = write(&rich(), shape);
        for len in CFI as usize..good.len() {
            exercise(&good[..len]);
        }
    }
    let good = write(&rich(), Shape::Header);
    let (image, index) = open(&good).unwrap();
    for len in CFI as usize..good.len() - 4 {
        // The index was opened before the file was cut: what is gone is bad or an error, and nothing is invented.
        let cut = good[..len].to_vec();
        if let Ok(page) = build_page(&cut, &index, &image, 0) {
            assert!(page.stats.bad_fdes > 0, "cut at {len}");
        }
    }
}

/// A table that claims more functions than its section can hold is not used: the entries are read one by one, which give the
/// same rows.
#[test]
fn refuses_absurd_table_counts() {
    let good = write(&rich(), Shape::Header);
    for count in [7, 1 << 20, u32::MAX] {
        let mut file = good.clone();
        file[CFI as usize + 8..][..4].copy_from_slice(&u32::to_le_bytes(count));
        let (_, index) = open(&file).unwrap();
        assert_eq!(index.function_count(), 6);
        assert!(index.heap_bytes() > 6 * 8, "an index of its own");
        assert_eq!(first_page(&file), first_page(&good));
    }
}

/// A table out of order is an error, not a wrong row.
#[test]
fn refuses_unsorted_tables() {
    let mut file = write(&rich(), Shape::Header);
    let entries = CFI as usize + 12;
    for byte in 0..8 {
        file.swap(entries + 16 + byte, entries + 24 + byte);
    }
    let (image, index) = open(&file).unwrap();
    let error = build_page(&file, &index, &image, 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "malformed call frame information: the table of .eh_frame_hdr is not sorted"
    );
}

/// Thousands of functions of one byte whose programs do nothing at length: the page's budget ends it, and what it refuses is
/// counted.
#[test]
fn bounds_the_work_for_a_page() {
    // Saves and restores the whole state, with a rule for each register that there can be.
    let mut program: Vec<u8> = (0..60).flat_map(|register| [0x80 | register, 1]).collect();
    program.extend([0x0a, 0x0b].repeat(2000));
    let functions: Vec<Function> = (0..4096).map(|n| function(TEXT + n, 1, &program)).collect();
    let start = Instant::now();
    let page = first_page(&write(&functions, Shape::Header));
    assert_eq!(page.stats.fdes, 4096);
    assert!((3000..4000).contains(&page.stats.bad_fdes), "{:?}", page.stats);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());

    let huge = function(TEXT, 0x100, &vec![0; 2 << 20]);
    assert_eq!(first_page(&write(&[huge], Shape::Header)).stats.bad_fdes, 1);
}

/// A file that claims a segment for every byte of a page costs no more than one with a few.
#[test]
fn bounds_the_segments_of_a_page() {
    let mut file = write(&rich(), Shape::Header);
    let headers: Vec<u8> = (0..4096_u64)
        .flat_map(|n| {
            let at = TEXT + n;
            let kind = [1, 0, 0, 0, 5, 0, 0, 0];
            kind.into_iter().chain([at, at, at, 1, 1, 1].into_iter().flat_map(u64::to_le_bytes))
        })
        .collect();
    let headers_at = file.len() as u64;
    file[0x20..0x28].copy_from_slice(&headers_at.to_le_bytes());
    file[0x38..0x3a].copy_from_slice(&4096_u16.to_le_bytes());
    let good = write(&rich(), Shape::Header);
    let (_, index) = open(&good).unwrap();
    file.extend(headers);
    let image = ElfImage::parse(&file, &ElfLimits::default()).unwrap();
    let page = build_page(&file, &index, &image, 0).unwrap();
    // The first function covers 0x30 bytes, the second begins at 0x40: of 64 bytes both have their share.
    assert!(page.rows.iter().all(|row| u64::from(row.0) <= TEXT + 64), "{:?}", page.rows);
    assert!((1..=64).contains(&page.stats.fdes), "{:?}", page.stats);
}

/// An expression that runs in a circle ends.
#[test]
fn bounds_expressions() {
    let circle = [0x0f, 4, 0x77, 8, 0x2f, 0xfd, 0xff];
    let program = [&[0x0f, 5], &circle[2..]].concat();
    let file = write(&[function(TEXT, 0x20, &program)], Shape::Header);
    let (_, index) = open(&file).unwrap();
    let mut registers = Registers::new(Architecture::X86_64, TEXT);
    registers.set(7, Some(0x1000));
    let error = full_step(&file, &index, TEXT, 0, &registers, |_| Some(8)).unwrap_err();
    assert!(error.to_string().starts_with("malformed call frame information"), "{error}");
}
