//! What a page is made of: functions, gaps, broken FDEs, segments; and where the CFI may be.

use std::cell::Cell;
use std::io;

use agent_ebpf::rule::{Rule, TEXT_PAGE, fp, kind};

use super::super::{CfiError, CfiIndex, CfiLimits, Page, PageStats, build_page};
use super::files::{self, TestFile};
use super::writer::{CFI, Function, Shape, TEXT, TEXT_END, first_page, function, open, write};
use crate::symbol::elf::{ElfImage, ElfLimits};
use crate::symbol::read_at::ReadAt;

const NONE: Rule = Rule { kind: kind::NONE, fp: 0, cfa_offset: 0, fp_offset: 0, ra_offset: 0 };

/// `cfa = sp + words * 8`, nothing saved.
fn sp(words: i16) -> Rule {
    Rule { kind: kind::SP, cfa_offset: words, ra_offset: -1, ..NONE }
}

/// A function that pushes one word after a byte.
fn pushing(start: u64, len: u64) -> Function {
    function(start, len, &[0x41, 0x0e, 16])
}

/// (address, rule) of the first page's rows; the first row is at address 0x0 of the file, which is in no segment.
fn rows(functions: &[Function]) -> Vec<(u64, Rule)> {
    let page = first_page(&write(functions, Shape::Header));
    page.rows.iter().map(|row| (u64::from(row.0), row.1)).collect()
}

/// Gaps of 16 bytes and more have no rule, shorter ones are padding; equal neighbours are one row.
#[test]
fn gaps_and_padding() {
    let functions = [
        pushing(TEXT + 0x10, 0x10),
        pushing(TEXT + 0x2f, 0x11),
        function(TEXT + 0x40, 1, &[]),
        pushing(TEXT + 0x51, 8),
    ];
    let expected = [
        (0, NONE),
        (TEXT + 0x10, sp(1)),
        (TEXT + 0x11, sp(2)),
        (TEXT + 0x2f, sp(1)),
        (TEXT + 0x30, sp(2)),
        (TEXT + 0x40, sp(1)),
        (TEXT + 0x41, NONE),
        (TEXT + 0x51, sp(1)),
        (TEXT + 0x52, sp(2)),
        (TEXT + 0x59, NONE),
    ];
    assert_eq!(rows(&functions), expected);
}

/// A page that begins in the middle of a function begins with that function's rule there.
#[test]
fn pages_in_the_middle_of_a_function() {
    let start = TEXT_PAGE - 8;
    let file = write(&[function(start, 2 * TEXT_PAGE, &[0x44, 0x0e, 16, 0x02, 12, 0x0e, 24])], Shape::Header);
    let (image, index) = open(&file).unwrap();
    let page = |number| build_page(&file, &index, &image, number).unwrap().rows;
    let at = |address: u64| address as u16;
    assert_eq!(page(0), [(0, NONE), (at(start), sp(1)), (at(start + 4), sp(2))]);
    assert_eq!(page(1), [(0, sp(2)), (8, sp(3))]);
    assert_eq!(page(2), [(0, sp(3))], "the segment ends in this page, and nothing after it is code");
    assert_eq!(page(3), []);
    assert_eq!(page(1 << 49), []);
    assert!(build_page(&file, &index, &image, u64::MAX).is_err());
}

/// One FDE with an unknown instruction costs what it covers, and is counted; its neighbours stay.
#[test]
fn a_bad_fde_costs_itself() {
    let bad = function(TEXT + 0x20, 0x20, &[0x41, 0x0e, 16, 0x3f]);
    let functions = [pushing(TEXT, 0x20), bad, pushing(TEXT + 0x40, 0x20)];
    let page = first_page(&write(&functions, Shape::Header));
    assert_eq!(page.stats, PageStats { fdes: 3, bad_fdes: 1, slow_rows: 0 });
    let around: Vec<_> = page.rows.iter().filter(|row| (0x1001..0x1050).contains(&row.0)).copied().collect();
    assert_eq!(around, [(0x1001, sp(2)), (0x1020, NONE), (0x1040, sp(1)), (0x1041, sp(2))]);
}

/// Offsets that do not fit, other registers and unknown expressions are for the slow path, and counted.
#[test]
fn what_does_not_fit_is_slow() {
    let programs: [&[u8]; 5] = [
        &[0x0e, 0x80, 0x80, 0x80, 0x80, 0x80, 1], // def_cfa_offset 32 GiB
        &[0x0e, 12],                              // not a multiple of 8
        &[0x0c, 10, 8],                           // def_cfa r10
        &[0x0f, 2, 0x77, 8],                      // an expression: breg7 8
        &[0x09, 16, 2],                           // the return address in rcx
    ];
    for program in programs {
        let page = first_page(&write(&[function(TEXT, 0x20, program)], Shape::Header));
        assert_eq!(page.rows[1], (TEXT as u16, Rule { kind: kind::SLOW, ..NONE }), "{program:x?}");
        assert_eq!(page.stats.slow_rows, 1);
    }
}

/// Frames of 256 KiB and more have rules too, with the caller's frame pointer; the last size with 16 bits and the first beyond.
#[test]
fn frames_of_any_size_have_rules() {
    let programs: [(&[u8], Rule); 4] = [
        (&[0x0e, 0xf8, 0xff, 0x0f], sp(i16::MAX)), // def_cfa_offset 256 KiB - 8
        (&[0x0e, 0x80, 0x80, 0x10], Rule::far(1 << 15, 0, 0)), // 256 KiB
        (&[0x0e, 0xb0, 0xfb, 0x20], Rule::far(67_510, 0, 0)), // 540,080 bytes, as in rustc
        (&[0x0e, 0x80, 0x80, 0x80, 0x80, 1, 0x86, 2], Rule::far(1 << 25, fp::SAVED, -2)), // 256 MiB; rbp at cfa-16
    ];
    for (program, rule) in programs {
        let page = first_page(&write(&[function(TEXT, 0x20, program)], Shape::Header));
        assert_eq!(page.rows[1], (TEXT as u16, rule), "{program:x?}");
        assert_eq!(page.stats.slow_rows, 0);
    }
}

/// Wherever the CFI is, the rows are the same; and a separate debug file gives them for the file that is mapped.
#[test]
fn every_shape_gives_the_same_rows() {
    // Out of order, and one of a function that the linker dropped.
    let functions =
        [pushing(TEXT + 0x100, 0x20), pushing(TEXT, 0x80), pushing(0, 0x500), pushing(TEXT + 0x80, 9)];
    let mapped = write(&functions[..2], Shape::Header);
    let (image, _) = open(&mapped).unwrap();
    let expected = first_page(&write(&[&functions[..2], &functions[3..]].concat(), Shape::Header));
    assert!(expected.rows.len() > 5);
    let others = [
        Shape::HeaderWithoutTable,
        Shape::EhFrame,
        Shape::DebugFrame(1),
        Shape::DebugFrame(3),
        Shape::DebugFrame(4),
    ];
    for shape in others {
        let file = write(&functions, shape);
        let (_, index) = open(&file).unwrap();
        assert_eq!((index.function_count(), index.heap_bytes()), (3, 3 * 8 + 24), "{shape:?}");
        assert_eq!(build_page(&file, &index, &image, 0).unwrap(), expected, "{shape:?}");
    }
    let error = open(&write(&[], Shape::EhFrame)).unwrap_err();
    assert!(matches!(error, CfiError::Absent), "{error}");
}

/// A compressed `.debug_frame` gives the same rows and is accounted for. One that lies about itself, is cut short, or is larger
/// than the limit, is refused without taking more memory than that.
#[test]
fn a_compressed_section_gives_the_same_rows() {
    let functions = [pushing(TEXT, 0x80), pushing(TEXT + 0x80, 9)];
    let plain = write(&functions, Shape::DebugFrame(1));
    let file = write(&functions, Shape::Compressed);
    let (image, index) = open(&file).unwrap();
    let (_, of_plain) = open(&plain).unwrap();
    assert_eq!(build_page(&file, &index, &image, 0).unwrap(), first_page(&plain));
    let size = index.heap_bytes() - of_plain.heap_bytes();
    assert!((100..1000).contains(&size), "{size}");

    let refusal = |change: &dyn Fn(&mut [u8]), inflated_bytes: u64| {
        let mut file = file.clone();
        change(&mut file[CFI as usize..]);
        let limits = CfiLimits { inflated_bytes, ..CfiLimits::default() };
        CfiIndex::open(&file, &image, &limits).unwrap_err().to_string()
    };
    let limit = 8 << 20;
    let other = refusal(&|section| section[0] = 3, limit);
    assert!(other.ends_with("compressed by neither zlib nor zstd"), "{other}");
    let zstd = refusal(&|section| section[0] = 2, limit);
    assert!(zstd.ends_with("cannot be unpacked"), "{zstd}");
    for delta in [1_u8, u8::MAX] {
        let wrong = refusal(&|section| section[9] = section[9].wrapping_add(delta), limit);
        assert!(wrong.ends_with("does not hold what it says"), "{wrong}");
    }
    let huge = refusal(&|section| section[13] = 1, limit);
    assert!(huge.contains("too large"), "{huge}");
    assert!(refusal(&|_| (), size as u64 - 1).contains("too large"));
    assert!(refusal(&|section| section[24..40].fill(0xff), limit).ends_with("cannot be unpacked"));
}

/// Real files read from end to end give the rows that their tables give.
#[test]
fn a_scan_finds_what_the_table_has() {
    for path in [files::libc(), std::env::current_exe().unwrap()] {
        let file = TestFile::open(&path);
        // Another type of program header and another name of section hide the table.
        let mut hidden = file.bytes.clone();
        let headers = u64::from_le_bytes(hidden[32..40].try_into().unwrap()) as usize;
        for header in hidden[headers..headers + 56 * 16].chunks_exact_mut(56) {
            if header[..4] == 0x6474_e550_u32.to_le_bytes() {
                header[0] = 0x7f;
            }
        }
        let name = b"\0.eh_frame_hdr\0";
        let at = hidden.windows(name.len()).rposition(|window| window == name).unwrap();
        hidden[at + 1] = b'-';
        let image = ElfImage::parse(&hidden, &ElfLimits::default()).unwrap();
        let index = CfiIndex::open(&hidden, &image, &CfiLimits::default()).unwrap();
        assert!(index.function_count() <= file.index.function_count());
        assert_eq!(index.heap_bytes() as u64, index.function_count() * 8 + 24);
        for page in file.pages() {
            assert_eq!(build_page(&hidden, &index, &image, page).unwrap(), file.page(page));
        }
        let few = CfiLimits { index_bytes: 100, ..CfiLimits::default() };
        assert!(matches!(CfiIndex::open(&hidden, &image, &few), Err(CfiError::TooLarge { limit: 100, .. })));
        let few = CfiLimits { scan_bytes: 1000, ..few };
        assert!(matches!(CfiIndex::open(&hidden, &image, &few), Err(CfiError::TooLarge { limit: 1000, .. })));
    }
}

/// A source that counts its reads, and fails after some.
struct Counting<'a> {
    bytes: &'a [u8],
    reads: Cell<u32>,
    most: u32,
}

impl ReadAt for Counting<'_> {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reads.set(self.reads.get() + 1);
        if self.reads.get() > self.most {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        self.bytes.read_exact_at(offset, buffer)
    }
}

/// A page of the C library takes a handful of reads; one that fails is an error, not a page without rules.
#[test]
fn a_page_takes_few_reads() {
    let file = TestFile::open(&files::libc());
    let source = |most| Counting { bytes: &file.bytes, reads: Cell::new(0), most };
    let mut reads = 0;
    let pages = file.pages();
    for &page in &pages {
        let source = source(u32::MAX);
        assert_eq!(build_page(&source, &file.index, &file.image, page).unwrap(), file.page(page));
        reads += source.reads.get();
    }
    println!("{} reads a page", f64::from(reads) / pages.len() as f64);
    assert!(reads < 16 * pages.len() as u32);
    for most in 0..3 {
        let page = build_page(&source(most), &file.index, &file.image, pages[pages.len() / 2]);
        assert!(matches!(page, Err(CfiError::Read(_))), "{page:?}");
    }
}

/// Functions that take their CIE in turns from two places far from theirs, as those with and without exception handlers do, cost
/// no read each: a section is read about once.
#[test]
fn reading_from_end_to_end_takes_few_reads() {
    let functions: Vec<Function> =
        (0..20_000).map(|n| Function { signal: n % 2 == 0, ..function(TEXT + n, 1, &[]) }).collect();
    let bytes = write(&functions, Shape::EhFrame);
    let source = Counting { bytes: &bytes, reads: Cell::new(0), most: u32::MAX };
    let image = ElfImage::parse(&source, &ElfLimits::default()).unwrap();
    let before = source.reads.get();
    let index = CfiIndex::open(&source, &image, &CfiLimits::default()).unwrap();
    assert_eq!(index.function_count(), 20_000);
    let reads = source.reads.get() - before;
    assert!(reads < 2 * bytes.len() as u32 / (8 << 10), "{reads} reads for {} bytes", bytes.len());
}

/// Text of two segments in one page: each part by its own addresses, what lies between by none.
#[test]
fn segments_that_share_a_page() {
    let mut file = write(&[pushing(TEXT, 0x100), pushing(0x80_2000, 0x100)], Shape::Header);
    // The segment of CFI stays where it is; a fourth program header maps 0x2000 of the file to another address.
    let mut header = [0_u8; 56];
    for (at, word) in [(8, 0x2000_u64), (16, 0x80_2000), (24, 0x80_2000), (32, 0x800), (40, 0x800)] {
        header[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    header[..8].copy_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
    file[64 + 3 * 56..64 + 4 * 56].copy_from_slice(&header);
    file[56] = 4;
    // The first one ends before the second begins.
    file[64 + 32..64 + 40].copy_from_slice(&0x800_u64.to_le_bytes());
    let (image, index) = open(&file).unwrap();
    let Page { rows, stats } = build_page(&file, &index, &image, 0).unwrap();
    assert_eq!(stats.fdes, 2);
    let offsets: Vec<_> = rows.iter().map(|row| (row.0, row.1.kind)).collect();
    let expected = [(0, 0), (0x1000, 1), (0x1001, 1), (0x1100, 0), (0x2000, 1), (0x2001, 1), (0x2100, 0)];
    assert_eq!(offsets, expected);
    assert_eq!(TEXT_END, 0x9000);
}

/// The running kernel's vDSO has rows: it is read from memory, and its code begins in the middle of the page.
#[test]
fn the_vdso_has_rows() {
    let Some(vdso) = crate::symbol::vdso::read_own().unwrap() else { return };
    let (image, index) = open(&vdso).unwrap();
    let page = build_page(&vdso, &index, &image, 0).unwrap();
    assert_eq!((page.stats.bad_fdes, page.stats.slow_rows), (0, 0));
    assert!(page.stats.fdes >= 3 && page.rows.len() > 5, "{page:?}");
}
