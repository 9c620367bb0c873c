//! Perf maps: text files of a line per function, `START SIZE NAME`, numbers in hexadecimal
//! (`tools/perf/Documentation/jit-interface.txt`).
//!
//! Runtimes append a line whenever they have made code, and write what they have buffered at any moment: the last line may be
//! half a line. Some put `0x` before the numbers (HotSpot), some write them in capitals (OpenJ9).

use std::io;

use crate::symbol::jit::code_table::{Code, CodeTable};
use crate::symbol::read_at::ReadAt;

/// Longest line that is read. Of longer ones (a generated regular expression, say) nothing is believed.
const LONGEST_LINE: usize = 16 << 10;
/// Bytes read in one go.
const CHUNK: usize = 64 << 10;

/// What a look at new lines found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Where the next look begins.
    pub(super) offset: u64,
    /// Lines or records that made no sense.
    pub(super) bad: u64,
    /// Whether the table was full before the end.
    pub(super) full: bool,
}

/// Adds the lines of `map` from `offset` to `end` to `table`, which may grow to `limit` bytes.
///
/// A line without an end is added as far as it goes, and read again at the next look: there may be more of it by then.
///
/// # Errors
/// When the file cannot be read, or ends before `end` because it is being rewritten.
pub(super) fn read(
    map: &(impl ReadAt + ?Sized),
    offset: u64,
    end: u64,
    table: &mut CodeTable,
    limit: usize,
) -> io::Result<Progress> {
    let mut progress = Progress { offset, ..Progress::default() };
    let mut chunk = vec![0; CHUNK];
    let mut skipping = false;
    while progress.offset < end && !progress.full {
        let filled = chunk.len().min(usize::try_from(end - progress.offset).unwrap_or(usize::MAX));
        let bytes = &mut chunk[..filled];
        map.read_exact_at(progress.offset, bytes)?;
        let mut taken = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n") else { break };
            let at = progress.offset + taken as u64;
            taken += line.len() + 1;
            // The end of a line whose beginning was skipped is no line.
            if !std::mem::take(&mut skipping) {
                progress.bad += u64::from(!add_line(line, at, table));
            }
            if table.is_full(limit) {
                progress.full = true;
                break;
            }
        }
        if taken == 0 && filled == CHUNK {
            progress.bad += u64::from(!skipping);
            skipping = true;
            taken = filled;
        } else if taken == 0 {
            add_line(bytes, progress.offset, table);
            break;
        }
        progress.offset += taken as u64;
    }
    table.settle();
    Ok(progress)
}

/// Whether the line made sense; empty ones do.
fn add_line(line: &[u8], at: u64, table: &mut CodeTable) -> bool {
    let line_is_empty = line.trim_ascii().is_empty();
    let code = parse(line).and_then(|line| Code::new(line.start, line.size, at + line.name_at as u64));
    if let Some(code) = code {
        table.push(code);
    }
    line_is_empty || code.is_some()
}

/// A line of a perf map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    start: u64,
    size: u64,
    /// Where the name begins in the line.
    name_at: usize,
}

fn parse(line: &[u8]) -> Option<Line> {
    if line.len() > LONGEST_LINE {
        return None;
    }
    let (start, rest) = number(line)?;
    let (size, rest) = number(rest)?;
    let name = rest.trim_ascii();
    let name_at = line.len() - rest.trim_ascii_start().len();
    (!name.is_empty()).then_some(Line { start, size, name_at })
}

/// The hexadecimal number that `text` begins with, which a blank must follow, and what is behind it.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let text = text.trim_ascii_start();
    let text = text.strip_prefix(b"0x").or(text.strip_prefix(b"0X")).unwrap_or(text);
    let length = text.iter().position(|byte| matches!(byte, b' ' | b'\t'))?;
    let (digits, rest) = text.split_at(length);
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let digits = std::str::from_utf8(digits).ok()?;
    Some((u64::from_str_radix(digits, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbol::jit::name::{name_at, readable};

    fn read_all(map: &[u8]) -> (CodeTable, Progress) {
        let mut table = CodeTable::default();
        let progress = read(&map, 0, map.len() as u64, &mut table, 1 << 20).expect("bytes can be read");
        (table, progress)
    }

    fn named(map: &[u8], table: &CodeTable, address: u64) -> Option<String> {
        let code = table.find(address)?;
        Some(name_at(&map, code.name_at.into(), b'\n').expect("bytes can be read").text)
    }

    /// Lines as HotSpot, Node.js, OpenJ9, .NET and CPython write them.
    #[test]
    fn lines_of_every_runtime() {
        let map = b"0x00007ff818ec7620 0x00000000000000b8 long Burn.hotJava(long)\n\
            1a885b80 140 JS:^hotJs /tmp/burn.js:1:15\n\
            7F58C4000120 1A4 java/lang/String.hashCode()I_warm\n\
            00007F8A12340000 3c instance void [app] Program::Main()[Tier0]\r\n\
            7f1f00000000 b py::work:/srv/a b.py\n";
        let (table, progress) = read_all(map);
        assert_eq!(progress, Progress { offset: map.len() as u64, bad: 0, full: false });
        for (address, name) in [
            (0x7ff8_18ec_7620 + 0xb7, "long Burn.hotJava(long)"),
            (0x1a88_5b80, "JS:^hotJs /tmp/burn.js:1:15"),
            (0x7f58_c400_0120, "java/lang/String.hashCode()I_warm"),
            (0x7f8a_1234_0000, "instance void [app] Program::Main()[Tier0]"),
            (0x7f1f_0000_0000, "py::work:/srv/a b.py"),
        ] {
            assert_eq!(named(map, &table, address).as_deref(), Some(name));
        }
        assert_eq!(table.find(0x7ff8_18ec_7620 + 0xb8), None);
    }

    /// A map in the form that OpenJ9 writes (`-Xjit:perfTool`), as people read it: a method is compiled more than once, and its later code may
    /// take the place of another's.
    #[test]
    fn a_map_of_openj9() {
        let map = include_bytes!("../../../tests/fixtures/openj9.map").as_slice();
        let (table, progress) = read_all(map);
        assert_eq!((progress.bad, table.len()), (0, 6));
        for (address, name) in [
            (0x7fc0_b4a0_c0e0, "com.example.Worker$1.run"),
            (0x7fc0_b4a0_c347, "java.lang.Object.<init>"),
            (0x7fc0_b4a0_c3a0, "java.util.HashMap.putVal"),
            (0x7fc0_b4a0_c740, "java.lang.String.hashCode"),
            (0x7fc0_b4a0_d0a0, "com.example.Matrix.multiply"),
            (0x7fc0_b4a0_dc00, "java.lang.invoke.ILGenMacros.invokeExact_X"),
        ] {
            let written = named(map, &table, address).expect("it is told");
            assert_eq!(readable(&written), name);
        }
    }

    /// A bad line costs itself, whatever is wrong with it.
    #[test]
    fn bad_lines_are_counted_and_tolerated() {
        let mut map = b"1000 10 first\n\n".to_vec();
        let bad: [&[u8]; 11] = [
            b"hello",
            b"2000 10",
            b"2000 10 ",
            b"2000  name",
            b"xyz 10 name",
            b"-2000 10 name",
            b"2000 0 empty",
            b"2000 100000000 giant",
            b"ffffffffffffffff 10 overflow",
            b"10000000000000000 10 too-long",
            b"\xff\xfe\x00\x01 10 name",
        ];
        for line in bad {
            map.extend_from_slice(line);
            map.push(b'\n');
        }
        map.extend(b"3000 10 ");
        map.extend(vec![b'x'; 3 * CHUNK]);
        map.extend(b"\n4000 10 last\n");
        let (table, progress) = read_all(&map);
        assert_eq!(progress, Progress { offset: map.len() as u64, bad: bad.len() as u64 + 1, full: false });
        assert_eq!(table.len(), 2);
        assert_eq!(named(&map, &table, 0x1000).as_deref(), Some("first"));
        assert_eq!(named(&map, &table, 0x4000).as_deref(), Some("last"));
    }

    /// However the writer's buffer cuts lines, reading in pieces ends with what reading at once gives, and a later entry for the
    /// same code wins.
    #[test]
    fn what_is_appended_is_read() {
        let map = b"1000 10 old\n2000 20 other\n1000 10 new\n3000 8 end\n";
        for first in 0..map.len() {
            let mut table = CodeTable::default();
            let seen = read(&map[..first].to_vec(), 0, first as u64, &mut table, 1 << 20).expect("read");
            let end = map.len() as u64;
            let progress = read(&map.to_vec(), seen.offset, end, &mut table, 1 << 20).expect("read");
            assert_eq!((progress.offset, seen.bad + progress.bad), (end, 0), "cut at {first}");
            let names = [0x1000, 0x2000, 0x3000].map(|address| named(map, &table, address));
            assert_eq!(
                names,
                [Some("new".into()), Some("other".into()), Some("end".into())],
                "cut at {first}"
            );
        }
    }

    /// A map without an end fills its share of memory and no more, and that is said.
    #[test]
    fn a_full_table_ends_the_reading() {
        let map: Vec<u8> =
            (0..20_000).flat_map(|at| format!("{:x} 8 f{at}\n", at * 16).into_bytes()).collect();
        let mut table = CodeTable::default();
        let limit = 32 << 10;
        let progress = read(&map, 0, map.len() as u64, &mut table, limit).expect("read");
        assert!(progress.full);
        assert_eq!(table.heap_bytes(), limit + size_of::<Code>());
    }

    /// A map that replaces its code again and again fits, however long it is.
    #[test]
    fn replaced_code_takes_no_room() {
        let map: Vec<u8> =
            (0..20_000).flat_map(|at| format!("{:x} 8 f{at}\n", at % 100 * 16).into_bytes()).collect();
        let mut table = CodeTable::default();
        let progress = read(&map, 0, map.len() as u64, &mut table, 32 << 10).expect("read");
        assert_eq!((progress.full, table.len()), (false, 100));
        assert_eq!(named(&map, &table, 99 * 16).as_deref(), Some("f19999"));
    }

    /// Seeded corruption of a real map is read to its end without a panic.
    #[test]
    fn corrupted_maps_are_read_to_their_end() {
        let whole: Vec<u8> = (0..500_u64)
            .flat_map(|at| format!("{:x} {:x} JS:*f{at} /a.js:1:{at}\n", at * 64, 64).into_bytes())
            .collect();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..300 {
            let mut map = whole.clone();
            for _ in 0..40 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (state >> 33) as usize % map.len();
                map[at] = (state >> 24) as u8;
            }
            let (table, progress) = read_all(&map);
            assert!(progress.offset <= map.len() as u64 && table.len() <= 1200);
        }
    }
}
