//! Dumps that are whole, cut, strange and broken.

use super::*;
use crate::symbol::jit::name::name_at;

fn header(magic: u32, version: u32, size: u32, machine: u32) -> Vec<u8> {
    let mut bytes = [magic, version, size, machine].map(u32::to_ne_bytes).concat();
    bytes.resize(size.max(40) as usize, 0);
    bytes
}

fn record(kind: u32, body: &[u8]) -> Vec<u8> {
    let size = (RECORD + body.len()) as u32;
    [&kind.to_ne_bytes()[..], &size.to_ne_bytes(), &7_u64.to_ne_bytes(), body].concat()
}

fn load(start: u64, size: u64, name: &str, code_bytes: usize) -> Vec<u8> {
    let numbers = [start, start, size, 1].map(u64::to_ne_bytes).concat();
    let code = vec![0xcc; code_bytes];
    record(KIND_LOAD, &[&[0; 8][..], &numbers, name.as_bytes(), &[0], &code].concat())
}

fn relocate(old: u64, new: u64, size: u64) -> Vec<u8> {
    let numbers = [new, old, new, size, 1].map(u64::to_ne_bytes).concat();
    record(KIND_MOVE, &[&[0; 8][..], &numbers].concat())
}

fn dump(records: &[Vec<u8>]) -> Vec<u8> {
    [header(MAGIC, 1, 40, MACHINE), records.concat()].concat()
}

fn read_all(dump: &[u8]) -> (CodeTable, Progress) {
    let mut table = CodeTable::default();
    let end = dump.len() as u64;
    let first = first_record(&dump, end).expect("readable").expect("a whole header").expect("a good one");
    let progress = read(&dump, first, end, &mut table, 1 << 20).expect("readable");
    (table, progress)
}

fn named(dump: &[u8], table: &CodeTable, address: u64) -> Option<String> {
    let code = table.find(address)?;
    Some(name_at(&dump, code.name_at.into(), 0).expect("readable").text)
}

/// Loads, among them one whose code is larger than what is read ahead, replacements, moves, and records of other kinds.
#[test]
fn loads_and_moves() {
    let (debug_info, unwinding, close) = (record(2, &[0; 100]), record(4, &[0; 24]), record(3, &[]));
    let dump = dump(&[
        load(0x1000, 0x10, "first", 16),
        debug_info,
        load(0x2000, 0x4_0000, "large", 0x4_0000),
        unwinding,
        load(0x1000, 0x10, "second", 16),
        relocate(0x1000, 0x9_0000, 0x10),
        relocate(0x9_0000, 0x9_1000, 0x10),
        load(0x1000, 8, "third", 8),
        close,
    ]);
    let (table, progress) = read_all(&dump);
    assert_eq!(progress, Progress { offset: dump.len() as u64, bad: 0, full: false });
    let names = [0x1000, 0x1008, 0x2_0000, 0x9_0000, 0x9_100f].map(|at| named(&dump, &table, at));
    let expected = ["third", "second", "large", "second", "second"].map(|name| Some(name.to_owned()));
    assert_eq!(names, expected);
}

/// A dump that is cut anywhere gives what is whole, and the rest when it has come.
#[test]
fn what_is_appended_is_read() {
    let dump =
        dump(&[load(0x1000, 16, "one", 16), relocate(0x1000, 0x3000, 16), load(0x1000, 16, "two", 16)]);
    let end = dump.len() as u64;
    for cut in 40..dump.len() {
        let mut table = CodeTable::default();
        let part = &dump[..cut];
        let seen = read(&part, 40, cut as u64, &mut table, 1 << 20).expect("readable");
        let progress = read(&&dump[..], seen.offset, end, &mut table, 1 << 20).expect("readable");
        assert_eq!((progress.offset, seen.bad + progress.bad), (end, 0), "cut at {cut}");
        assert_eq!(named(&dump, &table, 0x1000).as_deref(), Some("two"));
        assert_eq!(named(&dump, &table, 0x3000).as_deref(), Some("one"));
    }
}

/// A header that is longer than the file so far is waited for: records are never looked for behind the end.
#[test]
fn a_header_is_waited_for() {
    let whole = [header(MAGIC, 1, 64, MACHINE), load(0x1000, 16, "one", 16)].concat();
    for end in 40..64 {
        assert_eq!(first_record(&whole, end).expect("readable"), None, "{end}");
    }
    assert_eq!(first_record(&whole, 64).expect("readable"), Some(Ok(64)));
}

/// What is of another order of bytes, version or machine, or no dump, is refused and says why by its number.
#[test]
fn strange_dumps_are_refused() {
    let check = |header: &[u8]| first_record(&header, header.len() as u64).expect("readable");
    assert_eq!(check(&header(MAGIC, 1, 48, MACHINE)), Some(Ok(48)));
    assert_eq!(check(&header(MAGIC, 1, 40, MACHINE)[..39]), None);
    let swapped = MAGIC.swap_bytes();
    for (header, error) in [
        (header(swapped, 1 << 24, 40, 62 << 24), JitdumpError::ByteOrder(swapped)),
        (header(0x464c_457f, 1, 40, MACHINE), JitdumpError::Magic(0x464c_457f)),
        (header(MAGIC, 2, 40, MACHINE), JitdumpError::Version(2)),
        (header(MAGIC, 1, 40, 8), JitdumpError::Machine(8)),
        (header(MAGIC, 1, 12, MACHINE), JitdumpError::HeaderSize(12)),
    ] {
        assert_eq!(check(&header), Some(Err(error)));
    }
}

/// A record that is too short for its kind, has no name or an absurd size of code costs itself; a record shorter than its own
/// header ends the reading, because nothing says where the next one is.
#[test]
fn bad_records_are_counted() {
    let short = record(KIND_LOAD, &[0; 8]);
    let unknown = relocate(0x7777, 0x8888, 16);
    let giant = load(0x5000, 1 << 40, "giant", 0);
    let endless = [KIND_LOAD.to_ne_bytes(), 15_u32.to_ne_bytes(), [0; 4], [0; 4]].concat();
    let good = load(0x1000, 16, "good", 16);
    let dump =
        dump(&[short, load(0x3000, 16, "", 16), unknown, giant, good, endless, load(0x2000, 1, "lost", 1)]);
    let (table, progress) = read_all(&dump);
    assert_eq!((progress.bad, progress.full), (5, true));
    assert_eq!(table.len(), 1);
    assert_eq!(named(&dump, &table, 0x100f).as_deref(), Some("good"));
}

/// Seeded corruption is read without a panic, within the limit.
#[test]
fn corrupted_dumps_are_survived() {
    let records: Vec<_> = (0..200)
        .flat_map(|at| [load(at * 64, 64, "name", 64), relocate(at * 64, at * 64 + 0x1_0000, 64)])
        .collect();
    let whole = dump(&records);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..500 {
        let mut dump = whole.clone();
        for _ in 0..8 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % (dump.len() - 40) + 40;
            dump[at] = (state >> 24) as u8;
        }
        let (table, progress) = read_all(&dump);
        assert!(progress.offset <= dump.len() as u64 && table.len() <= 900);
    }
}
