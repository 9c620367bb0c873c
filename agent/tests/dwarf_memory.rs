//! What debug information really takes, counted by the allocator, against what the caches say that it takes.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use agent::symbol::dwarf::{DebugLines, DwarfCache, DwarfLimits, LinkedFiles, SharedSource};
use agent::symbol::elf::{ElfImage, ElfLimits};
use agent::symbol::read_at::FileAt;
use harness::counted_heap::{self, CountedHeap};

#[global_allocator]
static HEAP: CountedHeap = CountedHeap;

struct NoFiles;

impl LinkedFiles for NoFiles {
    fn package(&self) -> Option<(Arc<str>, SharedSource)> {
        None
    }

    fn open(&self, _path: &str) -> Option<SharedSource> {
        None
    }

    fn supplement(&self) -> Option<SharedSource> {
        None
    }
}

/// Asks for addresses spread over the code of `path`; returns (allocated, stated, peak) bytes.
fn measure(path: &Path, budget: usize) -> (usize, usize, usize) {
    let before = counted_heap::reset_peak();
    let source: SharedSource = Arc::new(FileAt::new(File::open(path).expect("a file")).expect("a length"));
    let image = ElfImage::parse(&*source, &ElfLimits::default()).expect("an ELF file");
    let cache = DwarfCache::new(budget, DwarfLimits::new(u64::MAX));
    let lines = DebugLines::open(&*source, &image, &cache).expect("debug information");
    let code = image.sections().iter().filter(|section| section.is_code());
    let text = code.max_by_key(|section| section.size).expect("code");
    let mut found = 0;
    for step in 0..500 {
        let address = text.address + text.size / 500 * step;
        found += usize::from(lines.lines(source.clone(), &NoFiles, address).is_ok());
    }
    assert!(found > 300, "{found} of 500 addresses of {} have lines", path.display());
    let usage = cache.memory_use();
    let stated = lines.heap_bytes() + usage.block_bytes + usage.unit_bytes;
    let (now, peak) = (counted_heap::now() - before, counted_heap::peak() - before);
    println!(
        "{}: {} KiB allocated, {} KiB stated, peak {} KiB; {usage:?}",
        path.display(),
        now >> 10,
        stated >> 10,
        peak >> 10
    );
    (now, stated, peak)
}

/// Caches state no less than they take, and not twice as much; and within a budget they stay, but for what one unit takes while it
/// is read.
#[test]
fn stated_bytes_are_the_allocators() {
    let own = std::env::current_exe().expect("a path");
    let mut files = vec![own];
    files.extend(std::env::var_os("NODEPROF_DWARF_FILES").iter().flat_map(std::env::split_paths));
    for path in files {
        for budget in [12 << 20, 256 << 20] {
            let (allocated, stated, peak) = measure(&path, budget);
            assert!(allocated <= stated + (64 << 10), "{allocated} bytes are allocated, {stated} stated");
            assert!(stated < 3 * allocated + (1 << 20), "{allocated} bytes are allocated, {stated} stated");
            assert!(peak < 2 * budget, "{peak} bytes at most with a budget of {budget}");
        }
    }
}
