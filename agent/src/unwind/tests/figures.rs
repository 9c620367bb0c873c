//! What rows cost: printed, and held to what the design promises.

use std::collections::HashSet;
use std::time::Instant;

use agent_ebpf::rule::{Rule, kind};

use super::super::PageStats;
use super::files::{self, TestFile};

/// Bytes of an arena run, of a page's header in it, and of a page's entry in the hash.
const RUN: usize = 64 * 4;
const HEADER: usize = 16;
const HASH_ENTRY: usize = 96;

struct Figures {
    fdes: u32,
    bad: u32,
    rows: usize,
    slow: u32,
    none: usize,
    pages: usize,
    bytes: usize,
    rules: usize,
    largest: usize,
}

/// Of the pages of this run; the rules are added to `shared`.
fn figures(file: &TestFile, shared: &mut HashSet<Rule>) -> Figures {
    let mut rules = HashSet::new();
    let mut figures =
        Figures { fdes: 0, bad: 0, rows: 0, slow: 0, none: 0, pages: 0, bytes: 0, rules: 0, largest: 0 };
    for number in file.chosen_pages() {
        let page = file.page(number);
        assert_eq!(page.rows.first().map(|row| row.0), Some(0), "a page begins with a row");
        assert!(page.rows.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 != two[1].1));
        let PageStats { fdes, bad_fdes, slow_rows } = page.stats;
        if fdes == 0 {
            // Data in an executable segment: no program counter makes anybody ask for its rows.
            continue;
        }
        figures.fdes += fdes;
        figures.bad += bad_fdes;
        figures.slow += slow_rows;
        figures.rows += page.rows.len();
        figures.none += page.rows.iter().filter(|(_, rule)| rule.kind == kind::NONE).count();
        figures.pages += 1;
        figures.largest = figures.largest.max(page.rows.len());
        figures.bytes += (page.rows.len() * 4 + HEADER).next_multiple_of(RUN) + HASH_ENTRY;
        rules.extend(page.rows.iter().map(|row| row.1));
    }
    figures.rules = rules.len();
    shared.extend(rules);
    figures
}

/// Rows of real files are few bytes, hardly any is for the slow path, no FDE is bad. Prints the figures per file.
#[test]
fn rows_are_small() {
    println!(
        "file                                 pages   FDEs    rows  none  slow  ‰ slow  rows/KB  max/page  rules  B/row  index  rows/s"
    );
    let mut shared = HashSet::new();
    for path in files::all() {
        let file = TestFile::open(&path);
        let start = Instant::now();
        let f = figures(&file, &mut shared);
        let per_second = f.rows as f64 / start.elapsed().as_secs_f64();
        // The shared table costs its 8 bytes a rule once; here each file pays for itself.
        let bytes_per_row = (f.bytes + 8 * f.rules) as f64 / f.rows as f64;
        let slow = f64::from(f.slow) * 1000.0 / f.rows as f64;
        println!(
            "{:36} {:5} {:6} {:7} {:5} {:5} {:7.2} {:8.1} {:9} {:6} {:6.2} {:6} {per_second:8.0}",
            file.name.chars().take(36).collect::<String>(),
            f.pages,
            f.fdes,
            f.rows,
            f.none,
            f.slow,
            slow,
            f.rows as f64 / (f.pages * 16) as f64,
            f.largest,
            f.rules,
            bytes_per_row,
            file.index.heap_bytes(),
        );
        assert_eq!(f.bad, 0, "{}: bad FDEs", file.name);
        assert!(slow < 10.0, "{}: {slow} ‰ of rows are slow", file.name);
        assert!(bytes_per_row < 6.0, "{}: {bytes_per_row} bytes a row", file.name);
        assert!(file.index.heap_bytes() < 1024);
        assert!(f.largest < 4096, "{}", f.largest);
    }
    println!("{} rules in all these files together", shared.len());
    assert!(shared.len() < 4096);
}
