//! Rows against what `readelf --debug-dump=frames-interp` prints of the same files: another parser, another interpreter.
//!
//! readelf prints of an expression only that there is one (`exp`); what it may be, the comparison with framehop and with the
//! full evaluation says. It does not print `.bolt.org.eh_frame`.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};

use agent_ebpf::rule::{Rule, fp, kind};

use super::files::{self, TestFile};

/// A register's rule as readelf writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    /// `u`, `s`, or no column.
    Unchanged,
    /// `c-16`: at CFA-16.
    Saved(i64),
    /// `exp`, `vexp`, another register.
    Other,
}

/// The CFA as readelf writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cfa {
    Sp(i64),
    Fp(i64),
    Expression,
    Other,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    address: u64,
    cfa: Cfa,
    fp: Column,
    ra: Column,
    /// `u` in the column of the return address.
    end: bool,
}

struct Function {
    range: Range<u64>,
    rows: Vec<Row>,
}

fn column(text: Option<&str>) -> Column {
    match text {
        None | Some("u" | "s") => Column::Unchanged,
        Some(text) => {
            text.strip_prefix('c').and_then(|n| n.parse().ok()).map_or(Column::Other, Column::Saved)
        }
    }
}

fn row(names: &[String], values: &[&str]) -> Option<Row> {
    let address = u64::from_str_radix(values.first().filter(|text| text.len() == 16)?, 16).ok()?;
    let named =
        |name: &str| names.iter().position(|found| found == name).and_then(|at| values.get(at).copied());
    let cfa = named("CFA")?;
    let offset = |register: &str| cfa.strip_prefix(register).and_then(|n| n.parse().ok());
    let cfa = match (offset("rsp"), offset("rbp")) {
        (Some(n), _) => Cfa::Sp(n),
        (_, Some(n)) => Cfa::Fp(n),
        _ if cfa == "exp" => Cfa::Expression,
        _ => Cfa::Other,
    };
    Some(Row {
        address,
        cfa,
        fp: column(named("rbp")),
        ra: column(named("ra")),
        end: named("ra") == Some("u"),
    })
}

/// All FDEs that readelf prints, sorted. None when there is no readelf.
fn functions(path: &Path) -> Option<Vec<Function>> {
    let mut child = Command::new("readelf")
        .args(["--debug-dump=frames-interp", "-W"])
        .arg(path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let (mut found, mut names, mut cies): (Vec<Function>, Vec<String>, HashMap<String, Row>) =
        Default::default();
    let mut cie = None;
    for line in BufReader::new(child.stdout.take()?).lines() {
        let line = line.unwrap();
        // Registers that hold registers are named twice: `r10 (r10)`.
        let words: Vec<&str> = line.split_whitespace().filter(|word| !word.starts_with('(')).collect();
        if words.get(3) == Some(&"CIE") {
            cie = Some(words[0].to_owned());
        } else if words.get(3) == Some(&"FDE") {
            cie = None;
            let (start, end) = words[5].strip_prefix("pc=").unwrap().split_once("..").unwrap();
            let start = u64::from_str_radix(start, 16).unwrap();
            let end = u64::from_str_radix(end, 16).unwrap();
            // An FDE without instructions has the rules of its CIE, and no lines.
            let initial = cies.get(words[4].strip_prefix("cie=").unwrap());
            let rows = initial.map(|&initial| Row { address: start, ..initial }).into_iter().collect();
            found.push(Function { range: start..end, rows });
        } else if words.first() == Some(&"LOC") {
            names = words.iter().map(|&name| name.to_owned()).collect();
        } else if let Some(row) = row(&names, &words) {
            match &cie {
                Some(cie) => drop(cies.insert(cie.clone(), row)),
                None => found.last_mut()?.rows.push(row),
            }
        }
    }
    child.wait().unwrap();
    found.sort_by_key(|function| function.range.start);
    Some(found)
}

fn words(bytes: i64) -> Option<i16> {
    (bytes % 8 == 0).then(|| i16::try_from(bytes / 8).ok()).flatten()
}

/// Whether `rule` says what `row` says.
fn same(rule: Rule, row: &Row) -> bool {
    let slow = rule.kind == kind::SLOW;
    if row.end {
        return rule.kind == kind::END;
    }
    let (expected, offset) = match row.cfa {
        Cfa::Sp(offset) => (kind::SP, words(offset)),
        Cfa::Fp(offset) => (kind::FP, words(offset)),
        Cfa::Expression => {
            return slow || matches!(rule.kind, kind::PLT | kind::SP_DEREF | kind::FP_DEREF | kind::SIGNAL);
        }
        Cfa::Other => return slow,
    };
    let Column::Saved(ra) = row.ra else { return slow };
    let (kind, offset, ra) = match (offset, words(ra), row.cfa) {
        (Some(offset), Some(ra), _) => (expected, i64::from(offset), i64::from(ra)),
        (None, Some(-1), Cfa::Sp(bytes)) if bytes % 8 == 0 && i32::try_from(bytes / 8).is_ok() => {
            (kind::SP_FAR, bytes / 8, -1)
        }
        _ => return slow,
    };
    let fp_agrees = match row.fp {
        Column::Unchanged => rule.fp == fp::SAME,
        Column::Saved(bytes) => match words(bytes) {
            Some(offset) => (rule.fp, rule.fp_offset) == (fp::SAVED, offset),
            None => rule.fp == fp::LOST,
        },
        Column::Other => matches!(rule.fp, fp::LOST | fp::AT_FP),
    };
    (rule.kind, rule.cfa_words(), rule.return_words()) == (kind, offset, ra) && fp_agrees
}

/// What rows say of an address: those of its page.
fn rule_at(rows: &[(u64, Rule)], address: u64) -> Option<Rule> {
    rows[..rows.partition_point(|row| row.0 <= address)].last().map(|row| row.1)
}

/// Compares one page, given the functions that readelf knows; returns how many of readelf's rows it saw.
fn compare(file: &TestFile, page: u64, functions: &[Function], bolted: bool) -> usize {
    let rows = file.rows(page);
    let Some(&(first, _)) = rows.first() else { return 0 };
    // Addresses of one page can be in two segments: those of the last row's are compared.
    let part = first..first + agent_ebpf::rule::TEXT_PAGE;
    let from = functions.partition_point(|function| function.range.end <= first);
    let mut known = vec![first];
    let mut seen = 0;
    let mut covered = first;
    for (position, function) in functions.iter().enumerate().skip(from) {
        if function.range.start >= part.end {
            break;
        }
        let range = &function.range;
        let next = functions.get(position + 1).map_or(u64::MAX, |next| next.range.start);
        for (at, row) in function.rows.iter().enumerate() {
            let until = function.rows.get(at + 1).map_or(range.end, |next| next.address);
            let address = row.address.max(first);
            known.push(row.address);
            // Neighbours at one address: the last one holds.
            if address < until && address < part.end && address < next && in_page(file, page, address) {
                let rule = rule_at(&rows, address).unwrap();
                assert!(same(rule, row), "{} at {address:#x}: {rule:?} is not {row:x?}", file.name);
                seen += 1;
            }
        }
        if range.start >= covered + 16 && in_page(file, page, covered) && !bolted {
            assert_eq!(rule_at(&rows, covered).unwrap().kind, kind::NONE, "{}: {covered:#x}", file.name);
        }
        known.extend([covered, range.end]);
        covered = covered.max(range.end);
    }
    let mine = |address: u64| known.contains(&address) || !in_page(file, page, address);
    for (address, rule) in rows {
        let starts_segment = file.image.executable_segments().any(|segment| segment.address == address);
        assert!(bolted || mine(address) || starts_segment, "{}: {rule:?} at {address:#x}", file.name);
    }
    seen
}

/// Whether the address is in this page and not only in the same range of addresses.
fn in_page(file: &TestFile, page: u64, address: u64) -> bool {
    file.image.executable_segments().any(|segment| {
        address.checked_sub(segment.address).is_some_and(|into| {
            into < segment.file_size && (segment.file_offset + into) / agent_ebpf::rule::TEXT_PAGE == page
        })
    })
}

/// Rows of a function that hold for some address.
fn distinct(function: &Function) -> usize {
    let next = function.rows.iter().skip(1).map(|row| row.address).chain([function.range.end]);
    function.rows.iter().zip(next).filter(|(row, next)| row.address < *next).count()
}

/// Every row that readelf prints holds in our pages, our pages have no row that readelf has not, and the gaps between functions
/// have no rule.
#[test]
fn agrees_with_readelf() {
    for path in files::all() {
        let file = TestFile::open(&path);
        let Some(functions) = functions(&file.path) else {
            println!("no readelf here, nothing compared");
            return;
        };
        let bolted = file.image.section_named(&file.bytes, ".bolt.org.eh_frame").is_some();
        let seen: usize = file.pages().into_iter().map(|page| compare(&file, page, &functions, bolted)).sum();
        let all: usize = functions.iter().map(distinct).sum();
        println!("{}: {} FDEs, {all} rows, {seen} times compared", file.name, functions.len());
        // Rows that begin in an earlier page are compared in both.
        assert!(seen >= all && all > 5_000, "{seen} of {all}");
    }
}
