//! Go's tables: the header, functions, lines with what is inlined, and how far the stack pointer has moved.

use agent::symbol::elf::{ElfImage, ElfLimits};
use agent::symbol::gopclntab::{GoLimits, GoTable};
use agent::symbol::read_at::ReadAt;

use crate::Target;
use crate::carrier::{self, AARCH64, ALLOC, RELA, Section, Shape, TEXT, TEXT_BYTES, X86_64};

/// A run of the stack pointer takes two bytes of input and 24 of heap, three times while the list grows; a name is as long as the
/// input at most, and there are 128 of an address with as many files.
pub(super) const TARGET: Target =
    Target { name: "gopclntab", longest_input: 4 << 10, heap_bytes: 4 << 20, read };

/// Where the tables are linked for.
const TABLES: u64 = 0x50_0000;

/// Bits of the first byte of an input.
mod variant {
    /// There are section headers, else the tables are found by their magic number.
    pub(super) const SECTIONS: u8 = 1;
    /// What follows the tables are relocations.
    pub(super) const RELOCATIONS: u8 = 2;
    /// The file is for arm64.
    pub(super) const AARCH64: u8 = 4;
    /// The reader has small limits.
    pub(super) const SMALL_LIMITS: u8 = 8;
}

/// The input: how the rest is carried (one byte), how many bytes of it are the tables (two), the tables, and what the program has
/// as data behind them.
fn read(input: &[u8]) -> bool {
    let &[variant, low, high, ref rest @ ..] = input else { return false };
    let (tables, data) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes([low, high]))));
    let is = |bit| variant & bit != 0;
    let shape = Shape {
        machine: if is(variant::AARCH64) { AARCH64 } else { X86_64 },
        loaded_at: Some(TABLES),
        headers: is(variant::SECTIONS),
    };
    let kind = if is(variant::RELOCATIONS) { RELA } else { carrier::PROGBITS };
    let file = carrier::carry(
        shape,
        &[
            Section { flags: ALLOC, ..Section::new(".gopclntab", tables) },
            Section { kind, flags: ALLOC, ..Section::new(".data", data) },
        ],
    );
    let limits = if is(variant::SMALL_LIMITS) {
        GoLimits { search_bytes: 1 << 10, relocation_bytes: 96, lookup_bytes: 1 << 10 }
    } else {
        GoLimits::default()
    };
    let image = match ElfImage::parse(&file, &ElfLimits::default()) {
        Ok(image) => image,
        Err(error) => panic!("the carrier is a good file: {error}"),
    };
    let Ok(Some(table)) = GoTable::open(&file, &image, &limits) else { return false };
    assert!(!table.is_empty() && table.len() <= input.len() as u64);
    look_up(&file, &image, &table) | walk(&file, &table)
}

/// Asks for addresses all over the code, and just outside. Whether one led to a line.
fn look_up(file: &dyn ReadAt, image: &ElfImage, table: &GoTable) -> bool {
    let mut any = false;
    let text = table.text_range(file).unwrap_or_default();
    let spread = (0..12).map(|step| TEXT + TEXT_BYTES / 512 * step * step);
    let edges = [text.start, text.end].into_iter().flat_map(|edge| [edge.wrapping_sub(1), edge]);
    for address in spread.chain(edges).chain([0, u64::MAX]) {
        let function = table.function_at(file, address);
        let Ok(lines) = table.lines(file, image, address) else { continue };
        assert!(lines.len() <= 129, "as deep as real code, and a bit");
        match function {
            Ok(Some(function)) => {
                assert!((function.entry..function.end).contains(&address));
                assert!(text.contains(&address));
                // A record that both could read is one function.
                assert_eq!(lines.last().map(|line| &line.function), Some(&function.name));
            }
            Ok(None) => assert!(lines.is_empty()),
            Err(_) => {}
        }
        any |= lines.iter().any(|line| line.line > 0 && !line.file.is_empty());
    }
    any
}

/// Reads functions as the unwinder does. Whether one has a stack.
fn walk(file: &dyn ReadAt, table: &GoTable) -> bool {
    let mut any = false;
    for range in [TEXT..TEXT + TEXT_BYTES, 0..u64::MAX] {
        let mut reader = table.reader(file);
        let Ok(records) = reader.records_in(range.clone(), 16) else { continue };
        for record in &records {
            assert!(record.entry < record.end && record.entry < range.end && record.end > range.start);
            let _ = reader.name(record);
            let Ok(deltas) = reader.stack_deltas(record) else { continue };
            assert!(deltas.first().is_none_or(|(run, _)| run.start == record.entry));
            assert!(deltas.windows(2).all(|two| two[0].0.end == two[1].0.start));
            assert!(deltas.last().is_none_or(|(run, _)| run.end <= record.end));
            any |= !deltas.is_empty();
        }
    }
    any
}
