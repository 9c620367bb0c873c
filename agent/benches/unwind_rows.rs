//! How many unwind rows are built in a second: all pages of the files named on the command line, one after the other, in one
//! thread.
//!
//! `cargo bench --bench unwind_rows -- FILES…`; `cargo xtask bench unwind` runs it. A line a file: rows, pages, nanoseconds,
//! path, separated by tabs.

#![expect(clippy::expect_used, reason = "a benchmark fails by panicking")]

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use agent::symbol::elf::{ElfImage, ElfLimits};
use agent::symbol::read_at::FileAt;
use agent::unwind::{CfiIndex, CfiLimits, build_page};
use agent_ebpf::rule::TEXT_PAGE;

fn main() {
    // Cargo adds `--bench`.
    for path in std::env::args_os().skip(1).filter(|argument| *argument != "--bench") {
        measure(Path::new(&path));
    }
}

fn measure(path: &Path) {
    let file = File::open(path).and_then(FileAt::new).expect("the file can be opened");
    let image = ElfImage::parse(&file, &ElfLimits::default()).expect("an ELF file");
    let index = CfiIndex::open(&file, &image, &CfiLimits::default()).expect("unwind information");
    let pages: Vec<u64> = image
        .executable_segments()
        .filter(|segment| segment.file_size > 0)
        .flat_map(|segment| {
            let last = segment.file_offset + segment.file_size - 1;
            segment.file_offset / TEXT_PAGE..=last / TEXT_PAGE
        })
        .collect();
    let began = Instant::now();
    let build = |page: &u64| build_page(&file, &index, &image, *page).map_or(0, |page| page.rows.len());
    let rows: usize = pages.iter().map(build).sum();
    println!("{rows}\t{}\t{}\t{}", pages.len(), began.elapsed().as_nanos(), path.display());
}
