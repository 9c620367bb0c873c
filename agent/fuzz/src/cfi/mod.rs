//! What is asked of a file's call frame information: the rows of its pages, and full steps from many addresses.

mod carrier;

use agent::symbol::elf::{ElfImage, ElfLimits};
use agent::unwind::{
    Architecture, CfiIndex, CfiLimits, Frame, Page, Registers, add_known_code, build_page, full_step, step,
};

pub(crate) use self::carrier::Place;

/// What reading and a page's rows may take for inputs of a few KiB.
pub(crate) const HEAP_BYTES: usize = 512 << 10;

/// The same where there may be a compressed section, of which a small one can become as large as is allowed.
pub(crate) const HEAP_BYTES_INFLATED: usize = HEAP_BYTES + (8 << 20);

/// Bytes of a text page.
const TEXT_PAGE: u64 = agent_ebpf::rule::TEXT_PAGE;

/// Full steps from one page at most.
const STEPS: usize = 24;

/// The input is a section with a byte before it that says what file it is in (see [`carrier::carry`]).
pub(crate) fn read_section(input: &[u8], place: Place) -> bool {
    let Some((&variant, section)) = input.split_first() else { return false };
    let file = carrier::carry(section, place, variant);
    match ElfImage::parse(&file, &ElfLimits::default()) {
        Ok(image) => read(&file, &image),
        Err(error) => panic!("the carrier is a good file: {error}"),
    }
}

/// Opens the file's CFI and asks it everything. Whether it led to rows.
pub(crate) fn read(file: &[u8], image: &ElfImage) -> bool {
    let limits = limits(file);
    let Ok(index) = CfiIndex::open(&file, image, &limits) else { return false };
    assert!(index.heap_bytes() <= limits.index_bytes + limits.inflated_bytes as usize + file.len());
    let mut any = false;
    for page in pages(image) {
        let Ok(mut rows) = build_page(&file, &index, image, page) else { continue };
        check_rows(&rows);
        let bad = rows.stats.bad_fdes;
        assert!(bad <= rows.stats.fdes);
        any |= rows.stats.fdes > bad;
        walk(file, &index, image, page, &rows);
        if add_known_code(&file, image, page, &mut rows).is_ok() {
            check_rows(&rows);
        }
    }
    any
}

/// A byte of the padding in `e_ident` says whether the limits are so small that they are reached.
fn limits(file: &[u8]) -> CfiLimits {
    if file.get(14).is_some_and(|&byte| byte != 0) {
        CfiLimits { index_bytes: 32, scan_bytes: 1 << 10, inflated_bytes: 256 }
    } else {
        CfiLimits::default()
    }
}

/// The first pages and the last of the first segments with code.
fn pages(image: &ElfImage) -> Vec<u64> {
    let mut pages: Vec<u64> = (image.executable_segments().take(2))
        .flat_map(|segment| {
            let first = segment.file_offset / TEXT_PAGE;
            let last = segment.file_offset.saturating_add(segment.file_size) / TEXT_PAGE;
            [first, first + 1, last.max(first)]
        })
        .collect();
    pages.sort_unstable();
    pages.dedup();
    pages
}

/// Rows ascend from 0 on, and neighbours differ.
pub(crate) fn check_rows(page: &Page) {
    assert!(page.rows.first().is_none_or(|row| row.0 == 0));
    assert!(page.rows.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 != two[1].1));
    assert!(page.rows.iter().all(|row| u64::from(row.0) < TEXT_PAGE));
}

/// Steps from where rows begin, by the row and by full evaluation, on a stack whose words count up.
fn walk(file: &[u8], index: &CfiIndex, image: &ElfImage, page: u64, rows: &Page) {
    let architecture = index.architecture();
    let read_stack = |address: u64| (address < 0x8000_0000).then(|| address.wrapping_add(64));
    for (offset, rule) in rows.rows.iter().take(STEPS) {
        let Some(address) = image.file_offset_to_address(page * TEXT_PAGE + u64::from(*offset)) else {
            continue;
        };
        let frame = Frame { ip: address, sp: 0x7fff_0000, fp: 0x7fff_0040, fp_known: true };
        let _ = step(architecture, frame, *rule, read_stack);
        let _ = full_step(&file, index, address, 0x1000, &registers(architecture, address), read_stack);
    }
}

fn registers(architecture: Architecture, ip: u64) -> Registers {
    let mut registers = Registers::new(architecture, ip);
    for number in 0..32 {
        registers.set(number, Some(0x7fff_0000 + u64::from(number) * 64));
    }
    registers
}
