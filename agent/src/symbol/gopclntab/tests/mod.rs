//! Hand-made tables of every layout, and broken ones. Real programs' are compared in `tests/go_tables.rs`.

mod hostile;
pub(crate) mod writer;

use super::header::Layout;
use super::*;
use crate::symbol::elf::{ElfImage, ElfLimits};
use writer::{Function, TEXT, TEXT_BYTES, Writer, function};

pub(crate) use super::header::Layout as TableLayout;

fn open(file: &[u8]) -> Result<(ElfImage, Option<GoTable>), GoTableError> {
    let image = ElfImage::parse(&file, &ElfLimits::default()).unwrap();
    let go = GoTable::open(&file, &image, &GoLimits::default())?;
    Ok((image, go))
}

/// Two functions; the second one has `outer` and, within it, `inner` inlined.
fn writer(layout: Layout) -> Writer {
    let second = Function {
        stack: vec![(0, 0x10), (300_000, 0x100)],
        files: vec![(0, 0x20), (1, 0x10), (0, 0xe0)],
        lines: vec![(10, 0x20), (20, 8), (30, 8), (40, 0xe0)],
        inline: vec![(-1, 0x20), (1, 8), (0, 8), (-1, 0xe0)],
        inlined: vec![("main.outer", 0x50), ("main.inner[go.shape.int]", 0x28)],
        ..function("main.second", 0x100, &[])
    };
    Writer::new(layout, vec![function("main.first", 0, &[(0, 4), (8, 0xfc)]), second])
}

fn every() -> Vec<Writer> {
    let later = Writer { says_text: false, ..writer(Layout::Go120) };
    vec![writer(Layout::Go116), writer(Layout::Go118), writer(Layout::Go120), later]
}

/// In every layout, in a file without sections: functions by address up to their borders, with their names.
#[test]
fn finds_functions_in_every_layout() {
    for writer in every() {
        let file = writer.write();
        let (_, go) = open(&file).unwrap();
        let go = go.unwrap();
        let name = |offset| go.function_at(&file, TEXT + offset).unwrap().map(|function| function.name);
        assert_eq!(go.text_range(&file).unwrap(), TEXT..TEXT + TEXT_BYTES);
        assert_eq!(go.len(), 2);
        for (offset, expected) in
            [(0, "main.first"), (0xff, "main.first"), (0x100, "main.second"), (0x1fff, "main.second")]
        {
            assert_eq!(name(offset).as_deref(), Some(expected), "{:?} {offset:#x}", writer.layout);
        }
        assert_eq!((name(TEXT_BYTES), go.function_at(&file, TEXT - 1).unwrap()), (None, None));
    }
}

/// In every layout: inlined functions innermost first, each with the line of the call within it.
#[test]
fn finds_inlined_functions_in_every_layout() {
    for writer in every() {
        let file = writer.write();
        let (image, go) = open(&file).unwrap();
        let go = go.unwrap();
        let lines = |offset| -> Vec<_> {
            let lines = go.lines(&file, &image, TEXT + 0x100 + offset).unwrap();
            lines.into_iter().map(|line| (line.function, line.file, line.line)).collect()
        };
        let line = |name: &str, file: &str, line| (name.to_owned(), file.to_owned(), line);
        assert_eq!(lines(0), [line("main.second", "/one.go", 10)], "{:?}", writer.layout);
        // `inner` at 0x20; its call in `outer` is at 0x28; that one's call is at 0x50.
        let chain = [
            line("main.inner[go.shape.int]", "/two.go", 20),
            line("main.outer", "/two.go", 30),
            line("main.second", "/one.go", 40),
        ];
        assert_eq!(lines(0x27), chain, "{:?}", writer.layout);
        assert_eq!(lines(0x28), chain[1..], "{:?}", writer.layout);
        assert_eq!(lines(0x30), chain[2..], "{:?}", writer.layout);
        // Behind the tables' end nothing is known but the function.
        assert_eq!(lines(0x1000), [line("main.second", "", 0)]);
        assert!(go.lines(&file, &image, TEXT - 1).unwrap().is_empty());
    }
}

/// In every layout: where the stack pointer is, clipped to the function.
#[test]
fn reads_stack_deltas_in_every_layout() {
    for writer in every() {
        let file = writer.write();
        let (_, go) = open(&file).unwrap();
        let go = go.unwrap();
        let mut reader = go.reader(&file);
        let records = reader.records_in(TEXT..TEXT + TEXT_BYTES, 10).unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(reader.name(&records[1]).unwrap(), "main.second");
        let deltas = reader.stack_deltas(&records[0]).unwrap();
        assert_eq!(deltas, [(TEXT..TEXT + 4, 0), (TEXT + 4..TEXT + 0x100, 8)]);
        let deltas = reader.stack_deltas(&records[1]).unwrap();
        assert_eq!(deltas.last().unwrap(), &(TEXT + 0x110..TEXT + 0x210, 300_000));
        assert_eq!(reader.records_in(TEXT + 0xff..TEXT + 0x100, 10).unwrap(), records[..1]);
        assert_eq!(reader.records_in(TEXT..TEXT + TEXT_BYTES, 1).unwrap(), records[..1]);
    }
}

/// A file of another language has none; tables of before Go 1.16 are refused and not misread.
#[test]
fn refuses_what_it_does_not_know() {
    let mut file = writer(Layout::Go118).write();
    file[0x3000] = 0xfb;
    assert!(open(&file).unwrap().1.is_none(), "in a file without sections the magic number is all there is");
    assert_eq!(shown_name("main.f[go.shape.[]int]"), "main.f[...]");
    assert_eq!(shown_name("main.f]["), "main.f][");
}
