//! Random addresses of real files, against GNU addr2line, llvm-symbolizer and blazesym.

use std::collections::BTreeMap;
use std::path::Path;

use super::files::{self, Opened};
use super::oracles::{self, Chain};

/// Addresses that are compared unless [`files::ALL`] is set.
const SAMPLE: usize = 1_000;

/// How far an answer agrees with an oracle's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Agreement {
    /// The same functions, and each at the same line.
    Whole,
    /// The same functions, other lines.
    Functions,
    /// The same physical function, another chain.
    Physical,
    /// Another function, or one of both says nothing.
    Other,
}

fn ours(opened: &Opened, address: u64) -> Chain {
    let lines = opened.lines(address).unwrap_or_default();
    lines
        .into_iter()
        .map(|line| {
            let function = line.function.unwrap_or_else(|| "??".to_owned());
            (function, format!("{}:{}", line.file.as_deref().unwrap_or("??"), line.line))
        })
        .collect()
}

/// Names as both sides have them: without suffixes for parts and clones, which only symbol tables have.
fn function(name: &str) -> &str {
    // Rust's older mangling has dots of its own, between dollars.
    let name = if name.contains('$') { name.split(".llvm.").next().unwrap() } else { name };
    let ends: &[char] = if name.contains('$') { &['@'] } else { &['.', '@'] };
    name.split(ends).next().filter(|stem| !stem.is_empty()).unwrap_or(name)
}

/// The last component of the file, and the line: the readers differ in how they join directories. No line is `0` or `?`.
fn place(place: &str) -> (&str, &str) {
    let (file, line) = place.rsplit_once(':').unwrap();
    (file.rsplit('/').next().unwrap(), if line == "?" { "0" } else { line })
}

/// The last component of a name without template arguments, demangled or not: what is left of a name for whose function the
/// compiler wrote no linkage name (`transform<…>` for what is a template over a lambda; closures have numbers in debug information and
/// none in symbol tables).
fn stem(name: &str) -> String {
    let name = crate::symbol::demangle::demangle(function(name)).replace("->", "");
    let mut depth = 0;
    let kept: String = name
        .chars()
        .filter(|letter| {
            depth += i32::from(*letter == '<') - i32::from(*letter == '>');
            depth == 0 && *letter != '>'
        })
        .collect();
    let last = kept.rsplit("::").next().unwrap_or_default().trim().trim_end_matches("{{vtable.shim}}");
    if last.starts_with("{closure#") { "{{closure}}".to_owned() } else { last.to_owned() }
}

/// Whether two readers call one function so.
pub(in crate::symbol) fn same_name(ours: &str, theirs: &str) -> bool {
    let is_linkage = |name: &str| name.starts_with("_Z") || name.starts_with("_R");
    // An entry of hand-written assembly has lines and no function.
    function(ours) == function(theirs)
        || ours == "??"
        || (is_linkage(ours) != is_linkage(theirs) && stem(ours) == stem(theirs))
}

/// Whether the difference between two answers is GNU's: for the innermost function, if it has no linkage name, it gives the symbol
/// that covers the address, which is the name of the function that holds the code.
fn is_gnu_symbol(ours: &Chain, theirs: &Chain, symbols: &[String]) -> bool {
    let (Some(a), Some(b)) = (ours.first(), theirs.first()) else { return false };
    let is_symbol = |name: &str| symbols.iter().any(|symbol| function(name) == function(symbol));
    ours.len() == theirs.len()
        && is_symbol(&b.0)
        && place(&a.1) == place(&b.1)
        && ours.iter().zip(theirs).skip(1).all(|(a, b)| same_name(&a.0, &b.0) || is_symbol(&b.0))
}

/// How far `ours` agrees with `theirs`; `symbols` are the names of the symbol that covers the address, by any of which an oracle may
/// call the function that holds the code.
fn agreement(ours: &Chain, theirs: &Chain, symbols: &[String]) -> Agreement {
    let same = |a: &(String, String), b: &(String, String)| same_name(&a.0, &b.0);
    let same_last = |a: &(String, String), b: &(String, String)| {
        same(a, b) || symbols.iter().any(|symbol| function(symbol) == function(&b.0))
    };
    // Where debug information says nothing oracles give the symbol that is there, which is not asked for here.
    let only_symbol = |chain: &Chain| match chain.as_slice() {
        [] => true,
        [(_, at)] => place(at).1 == "0",
        _ => false,
    };
    // Between functions there may be lines; blazesym says nothing there.
    let no_function = |chain: &Chain| matches!(chain.as_slice(), [(name, _)] if name == "??");
    if (only_symbol(ours) || no_function(ours) && theirs.is_empty()) && only_symbol(theirs) {
        return Agreement::Whole;
    }
    let (Some((our_last, ours_inlined)), Some((their_last, theirs_inlined))) =
        (ours.split_last(), theirs.split_last())
    else {
        return Agreement::Other;
    };
    if !same_last(our_last, their_last) {
        Agreement::Other
    } else if ours.len() != theirs.len() || !ours_inlined.iter().zip(theirs_inlined).all(|(a, b)| same(a, b))
    {
        Agreement::Physical
    } else if ours.iter().zip(theirs).all(|(a, b)| place(&a.1) == place(&b.1)) {
        Agreement::Whole
    } else {
        Agreement::Functions
    }
}

/// Compares, prints what differs, and asserts that at least 999 of 1,000 functions and as many chains are the same.
fn compare(path: &Path, count: usize, least: [f64; 2]) {
    let opened = Opened::new(path);
    let addresses = opened.addresses(count);
    let started = std::time::Instant::now();
    let answers: Vec<Chain> = addresses.iter().map(|address| ours(&opened, *address)).collect();
    let inlined = answers.iter().filter(|chain| chain.len() > 1).count();
    let deepest = answers.iter().map(Vec::len).max().unwrap();
    println!(
        "{}: {} addresses, {} with lines, {inlined} inlined, {deepest} deep at most; {:?}, {} KiB ({} own); {:?}",
        path.display(),
        count,
        answers.iter().filter(|chain| !chain.is_empty()).count(),
        started.elapsed(),
        opened.bytes() >> 10,
        opened.own_bytes() >> 10,
        opened.cache.memory_use(),
    );
    let oracles = [
        ("GNU", oracles::gnu(path, &addresses)),
        ("LLVM", oracles::llvm(path, &addresses)),
        ("blazesym", Some(oracles::blazesym(path, &addresses))),
    ];
    for (name, theirs) in oracles {
        let Some(theirs) = theirs else { continue };
        assert_eq!(theirs.len(), count);
        let mut tally = BTreeMap::new();
        for ((address, ours), theirs) in addresses.iter().zip(&answers).zip(&theirs) {
            let symbols = opened.symbols(*address);
            let mut agreement = agreement(ours, theirs, symbols);
            if agreement > Agreement::Whole && name == "GNU" && is_gnu_symbol(ours, theirs, symbols) {
                agreement = Agreement::Functions;
            }
            *tally.entry(agreement).or_insert(0usize) += 1;
            if agreement > Agreement::Functions
                || (agreement == Agreement::Functions && name != "GNU" && tally[&agreement] < 4)
            {
                println!("  {address:#x} {agreement:?}\n    ours {ours:?}\n    {name} {theirs:?}");
            }
        }
        println!("  {name}: {tally:?}");
        let share = |worst| {
            tally.iter().filter(|(agreement, _)| **agreement <= worst).map(|(_, count)| count).sum::<usize>()
                as f64
                / count as f64
        };
        assert!(share(Agreement::Physical) >= least[0], "{name}: {tally:?}");
        assert!(share(Agreement::Functions) >= least[1], "{name}: {tally:?}");
    }
}

fn count() -> usize {
    if std::env::var_os(files::ALL).is_some() { 10_000 } else { SAMPLE }
}

/// The C library's debug file, whose sections are compressed.
#[test]
fn agrees_on_the_c_library() {
    let Some(path) = files::libc_debug() else {
        println!("no debug file of the C library: not compared");
        return;
    };
    compare(&path, count(), [0.999, 0.999]);
}

/// Ten levels of inlined templates.
#[test]
fn agrees_on_cpp() {
    let directory = tempfile::tempdir().unwrap();
    let command = ["g++", "-O2", "-g"];
    let Some(path) = files::compile(directory.path(), &command, ("deep.cpp", files::CPP), "deep") else {
        return;
    };
    compare(&path, count(), [0.999, 0.999]);
}

/// A Rust program in release mode, with its standard library.
#[test]
fn agrees_on_rust() {
    let directory = tempfile::tempdir().unwrap();
    let command = ["rustc", "-O", "-g", "--edition=2024"];
    let Some(path) = files::compile(directory.path(), &command, ("words.rs", files::RUST), "words") else {
        return;
    };
    compare(&path, count(), [0.999, 0.999]);
}

/// This test's own binary.
#[test]
fn agrees_on_the_running_binary() {
    compare(&std::env::current_exe().unwrap(), count(), [0.999, 0.999]);
}

/// The files named in `NODEPROF_DWARF_FILES`, separated by colons.
#[test]
fn agrees_on_files_of_choice() {
    let Some(files) = std::env::var_os("NODEPROF_DWARF_FILES") else { return };
    for path in std::env::split_paths(&files) {
        compare(&path, count(), [0.999, 0.999]);
    }
}
