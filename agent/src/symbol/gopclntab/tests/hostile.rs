//! Broken and hostile tables: an error or fewer names, never a panic, and no more work than the limits say.

use std::cell::Cell;
use std::io;

use super::*;
use crate::symbol::read_at::ReadAt;

/// Counts bytes that are read.
struct Counted<'a> {
    bytes: &'a [u8],
    read: Cell<u64>,
}

impl ReadAt for Counted<'_> {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read.set(self.read.get() + buffer.len() as u64);
        self.bytes.read_exact_at(offset, buffer)
    }
}

const LIMITS: GoLimits =
    GoLimits { search_bytes: 1 << 20, relocation_bytes: 1 << 20, lookup_bytes: 64 << 10 };

/// Opens the file and asks it everything; whether there were tables, and the most bytes that a question read.
fn exercise(file: &[u8]) -> (bool, u64) {
    let source = Counted { bytes: file, read: Cell::new(0) };
    let Ok(image) = ElfImage::parse(&source, &ElfLimits::default()) else { return (false, 0) };
    let Ok(Some(go)) = GoTable::open(&source, &image, &LIMITS) else { return (false, 0) };
    let mut most = 0;
    let mut ask = |question: &dyn Fn()| {
        source.read.set(0);
        question();
        most = most.max(source.read.get());
    };
    for address in [0, TEXT, TEXT + 0x104, TEXT + 0x127, TEXT + 0x1fff, u64::MAX - 1] {
        // Most lead outside the tables: that is an error, not a panic.
        ask(&|| drop(go.function_at(&source, address)));
        ask(&|| drop(go.lines(&source, &image, address)));
    }
    ask(&|| {
        let mut reader = go.reader(&source);
        for record in reader.records_in(0..u64::MAX, 1000).unwrap_or_default() {
            drop(reader.stack_deltas(&record));
            drop(reader.name(&record));
        }
    });
    (true, most)
}

/// A small generator (Knuth's MMIX constants), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// 8,000 files with one to eight bytes changed, in the tables or in what leads to them, are survived, and no question reads more
/// than the limits allow.
#[test]
fn survives_corrupted_bytes() {
    // Four kinds of table, the search for the inlining tables' base, and small change.
    let allowed = 4 * LIMITS.lookup_bytes + LIMITS.search_bytes + (64 << 10);
    let (mut opened, mut greatest) = (0, 0);
    for writer in every() {
        let good = writer.write();
        let (sound, most) = exercise(&good);
        assert!(sound && most < 64 << 10, "{most}");
        for seed in 0..2000 {
            let mut random = Random(seed);
            let mut file = good.clone();
            for _ in 0..=random.below(8) {
                let at = match random.below(4) {
                    // The header, the table of functions and their records, all of the tables, the description.
                    0 => 0x3000 + random.below(72),
                    1 => 0x3000 + 0x1800 + random.below(0x100),
                    2 => 0x3000 + random.below(0x3818),
                    _ => file.len() - 0x400 + random.below(0x400),
                };
                file[at] = [0, 0xff, 0x80, random.below(256) as u8][random.below(4)];
            }
            let (was_opened, most) = exercise(&file);
            opened += usize::from(was_opened);
            greatest = greatest.max(most);
            assert!(most <= allowed, "{:?}, seed {seed}: {most} bytes", writer.layout);
        }
    }
    println!("{opened} of 8000 opened, at most {greatest} bytes read for one question");
    assert!(opened > 2000, "{opened}");
}

/// A file that ends anywhere is survived.
#[test]
fn survives_truncation() {
    for writer in every() {
        let good = writer.write();
        for end in (0..good.len()).step_by(97) {
            exercise(&good[..end]);
        }
    }
}

/// A table of values that never ends, and inlined calls that lead in a circle, end by the limits.
#[test]
fn survives_endless_tables() {
    let mut writer = writer(Layout::Go120);
    writer.functions[1].inlined = vec![("a", 0x20), ("b", 0x20)];
    let file = writer.write();
    let (image, go) = open(&file).unwrap();
    let lines = go.unwrap().lines(&file, &image, TEXT + 0x120).unwrap();
    assert!((2..=200).contains(&lines.len()), "{}", lines.len());

    // Steps of no length: a value and a distance of 0, again and again, to the end of the file and beyond.
    let mut file = writer.write();
    let end = file.len();
    file[0x3880..end - 0x400].fill(2);
    let endless = [file.clone(), vec![2; 1 << 20]].concat();
    for file in [file, endless] {
        exercise(&file);
    }
}
