//! Signal trampolines without CFI, in files made for it and in musl.

use agent_ebpf::rule::{Rule, TEXT_PAGE, kind};

use super::super::{Page, PageStats, add_known_code, build_page};
use super::writer::{Shape, TEXT, function, open, write};
use crate::symbol::elf::{ElfImage, ElfLimits};

const TRAMPOLINE: &[u8; 9] = b"\x48\xc7\xc0\x0f\0\0\0\x0f\x05";

/// The kinds of the rows of `number`, with trampolines at `places` in a file with a function at its start and one at 0x5000.
fn kinds(places: &[u64], number: u64) -> Vec<(u16, u8)> {
    let mut file = write(&[function(TEXT, 0x100, &[]), function(0x5000, 0x100, &[])], Shape::Header);
    for &place in places {
        file[place as usize..][..9].copy_from_slice(TRAMPOLINE);
    }
    let (image, index) = open(&file).unwrap();
    let mut page = build_page(&file, &index, &image, number).unwrap();
    add_known_code(&file, &image, number, &mut page).unwrap();
    assert!(page.rows.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 != two[1].1));
    page.rows.iter().map(|row| (row.0, row.1.kind)).collect()
}

/// A trampoline has its rule from the byte before it to its end; one that CFI covers keeps what CFI says.
#[test]
fn marks_code_without_rules() {
    let plain = vec![(0, 0), (0x1000, 1), (0x1100, 0)];
    assert_eq!(kinds(&[], 0), plain);
    assert_eq!(kinds(&[0x1080], 0), plain);
    let marked = |from, to| [plain.clone(), vec![(from, kind::SIGNAL), (to, 0)]].concat();
    assert_eq!(kinds(&[0x2000], 0), marked(0x1fff, 0x2009));
    // Right behind a function: its last byte is the function's, so the row is the function's too.
    assert_eq!(kinds(&[0x1101], 0), [&plain[..2], &[(0x1100, kind::SIGNAL), (0x110a, 0)]].concat());
    assert_eq!(kinds(&[0x2000, 0x3000], 0).len(), 7);
    // One begins a byte after another ends: both are one row.
    assert_eq!(kinds(&[0x2000, 0x200a], 0), marked(0x1fff, 0x2013));
}

/// A trampoline across the border of two pages is found from both.
#[test]
fn marks_across_pages() {
    for place in 0x3ff8..=0x4000 {
        let first = kinds(&[place], 0);
        assert_eq!(first.last(), Some(&((place - 1) as u16, kind::SIGNAL)), "{place:#x}");
        let second = kinds(&[place], 1);
        assert_eq!(second[..2], [(0, kind::SIGNAL), ((place + 9 - 0x4000) as u16, 0)], "{place:#x}");
    }
    assert_eq!(kinds(&[0x3ff7], 1)[0], (0, 0), "it ends with the first page");
    assert_eq!(kinds(&[0x4001], 0).len(), 3, "the byte before is in the second page");
    assert_eq!(kinds(&[0x4001], 1)[0], (0, kind::SIGNAL));
}

/// The code that musl's programs begin with is the end of a stack, also at the return address of its call; anything else is not.
#[test]
fn marks_the_start_of_musl() {
    let start = b"\x48\x31\xed\x48\x89\xe7\x48\x8d\x35\xaf\x2d\0\0\x48\x83\xe4\xf0\xe8\x06\0\0\0";
    let kinds_with = |code: &[u8]| -> Vec<_> {
        let mut file = write(&[function(TEXT, 0x100, &[]), function(0x5000, 0x100, &[])], Shape::Header);
        file[0x2000..][..code.len()].copy_from_slice(code);
        let (image, index) = open(&file).unwrap();
        let mut page = build_page(&file, &index, &image, 0).unwrap();
        add_known_code(&file, &image, 0, &mut page).unwrap();
        page.rows.iter().map(|row| (row.0, row.1.kind)).collect()
    };
    let plain = vec![(0, 0), (0x1000, 1), (0x1100, 0)];
    assert_eq!(kinds_with(start), [plain.clone(), vec![(0x2000, kind::END), (0x2016, 0)]].concat());
    for at in [0, 8, 13, 17] {
        let mut other = *start;
        other[at] ^= 1;
        assert_eq!(kinds_with(&other), plain, "{at}");
    }
}

/// The C library musl, where it is installed, has exactly one trampoline, one beginning of threads, and one of its own.
#[test]
fn finds_those_of_musl() {
    let Ok(file) = std::fs::read("/usr/lib/ld-musl-x86_64.so.1") else {
        println!("no musl here, nothing looked for");
        return;
    };
    let image = ElfImage::parse(&file, &ElfLimits::default()).unwrap();
    let text = image.text_segment().unwrap();
    let pages = text.file_offset / TEXT_PAGE..=(text.file_offset + text.file_size) / TEXT_PAGE;
    let (mut found, mut ends) = (Vec::new(), 0);
    for number in pages {
        let mut page = Page { rows: vec![(0, Rule::default())], stats: PageStats::default() };
        add_known_code(&file, &image, number, &mut page).unwrap();
        let signal = page.rows.iter().filter(|row| row.1.kind == kind::SIGNAL);
        ends += page.rows.iter().filter(|row| row.1.kind == kind::END).count();
        found.extend(signal.map(|row| number * TEXT_PAGE + u64::from(row.0) + 1));
    }
    println!("{found:x?}");
    // Its dynamic linker begins as its programs do.
    assert_eq!((found.len(), ends), (1, 2));
}
