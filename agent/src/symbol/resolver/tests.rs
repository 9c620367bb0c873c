//! Names as the resolver gives them, of random addresses of real files, against GNU addr2line, llvm-symbolizer and blazesym.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object as _, ObjectSymbol as _, SymbolKind};

use super::*;
use crate::kernel::sideband::record::FileHint;
use crate::process::module::{ModuleKey, Witness};
use crate::symbol::dwarf::tests::{differential::same_name, files, oracles};
use crate::symbol::elf::{ElfImage, ElfLimits};
use crate::symbol::gopclntab::shown_name;
use crate::symbol::read_at::FileAt;

/// Addresses that are compared unless [`files::ALL`] is set, which makes it 10,000.
const SAMPLE: usize = 1_000;
/// Share of addresses at which the resolver and an oracle must know the same function.
const SAME: f64 = 0.999;

/// Everything that symbol tables call functions, read by another library.
struct Truth {
    /// By ascending start.
    functions: Vec<(u64, u64)>,
    /// All names of the functions at one address.
    names: HashMap<u64, Vec<String>>,
}

impl Truth {
    /// Of `path` and the files that hold what was stripped from it.
    fn of(path: &Path, stripped_from: Option<&Path>) -> Self {
        let (mut functions, mut names) = (Vec::new(), HashMap::<u64, Vec<String>>::new());
        for path in [Some(path.to_owned()), stripped_from.map(Path::to_owned), files::debug_file(path)] {
            let Some(bytes) = path.map(|path| std::fs::read(path).unwrap()) else { continue };
            let file = object::File::parse(&*bytes).unwrap();
            for symbol in file.symbols().chain(file.dynamic_symbols()) {
                let is_function = symbol.kind() == SymbolKind::Text && symbol.size() > 0;
                if is_function && !symbol.is_undefined() {
                    functions.push((symbol.address(), symbol.address() + symbol.size()));
                    let name = String::from_utf8_lossy(symbol.name_bytes().unwrap()).into_owned();
                    names.entry(symbol.address()).or_default().push(name);
                }
            }
        }
        functions.sort_unstable();
        functions.dedup();
        Self { functions, names }
    }

    /// All names of the innermost function that covers `address`.
    fn at(&self, address: u64) -> Option<&[String]> {
        let before = self.functions.partition_point(|(start, _)| *start <= address);
        // A few functions lie in others.
        let (start, _) = self.functions[..before].iter().rev().take(64).find(|(_, end)| address < *end)?;
        self.names.get(start).map(Vec::as_slice)
    }
}

/// A resolver, and frames at `addresses` of a module of its.
fn resolver_and_frames(path: &Path, addresses: &[u64]) -> (Arc<Resolver>, Vec<Frame>) {
    let file = FileAt::new(std::fs::File::open(path).unwrap()).unwrap();
    let image = ElfImage::parse(&file, &ElfLimits::default()).unwrap();
    let file_offset = |address: u64| {
        let within = |segment: &&crate::symbol::elf::Segment| {
            address.checked_sub(segment.address).is_some_and(|into| into < segment.file_size)
        };
        let segment = image.executable_segments().find(within).unwrap();
        segment.file_offset + (address - segment.address)
    };
    let modules = Arc::new(ModuleTable::default());
    let found = std::fs::metadata(path).unwrap();
    let hint = FileHint { device: found.dev(), inode: found.ino() };
    let key = ModuleKey::File { path: path.to_str().unwrap().into(), hint };
    let module = modules.intern(key, Witness { pid: std::process::id(), start: 0, end: 0 });
    let debug_files = Arc::new(DebugFiles::new(vec!["/usr/lib/debug".into()], 1 << 20));
    let limits = SymbolLimits {
        memory: 24 << 20,
        lines: false,
        debug_info: 0,
        jvm_perf_map: JvmPerfMap::Off,
        style: NameStyle::Full,
    };
    let resolver = Resolver::new(modules, debug_files, limits, &SelfMetrics::new().unwrap()).unwrap();
    let frame = |address: &u64| Frame::User { module, file_offset: file_offset(*address), guessed: false };
    let frames = addresses.iter().map(frame).collect();
    (resolver, frames)
}

/// What the resolver calls the functions at `addresses` in their symbol tables; None where it knows none.
fn ours(path: &Path, addresses: &[u64]) -> Vec<Option<String>> {
    let (resolver, frames) = resolver_and_frames(path, addresses);
    let named = resolver.resolve_all(&frames).into_iter().map(|symbols| {
        symbols.unresolved.is_none().then(|| symbols.frames[0].function.system_name().to_owned())
    });
    let named: Vec<_> = named.collect();
    // What is asked for one by one, and from the end, is the same; also in another resolver's time.
    for (frame, name) in frames.iter().zip(&named).rev().step_by(97) {
        let again = resolver.resolve(*frame);
        assert_eq!(again.unresolved.is_none(), name.is_some());
        assert!(name.as_ref().is_none_or(|name| again.frames[0].function.system_name() == name));
    }
    named
}

/// `count` addresses of functions of `truth` in the code of `path`, always the same.
fn addresses(path: &Path, truth: &Truth, count: usize) -> Vec<u64> {
    let file = FileAt::new(std::fs::File::open(path).unwrap()).unwrap();
    let image = ElfImage::parse(&file, &ElfLimits::default()).unwrap();
    let sections: Vec<_> = image.sections().iter().filter(|section| section.is_code()).collect();
    let total: u64 = sections.iter().map(|section| section.size).sum();
    let mut random = files::Random(0x2545_f491_4f6c_dd1d);
    let mut found = Vec::new();
    for _ in 0..100 * count {
        let mut into = random.below(total);
        let section = sections.iter().find(|section| {
            let within = into < section.size;
            if !within {
                into -= section.size;
            }
            within
        });
        let address = section.unwrap().address + into;
        if truth.at(address).is_some() {
            found.push(address);
        }
        if found.len() == count {
            break;
        }
    }
    assert_eq!(found.len(), count, "{} has code without symbols only", path.display());
    found
}

/// Names are the same whoever reads them: one reader as it opens the module, two at a time once it is open, nobody once they are
/// known.
#[test]
fn parts_and_memory_agree() {
    let path = std::env::current_exe().unwrap();
    let truth = Truth::of(&path, None);
    let addresses = addresses(&path, &truth, 4 * PART);
    let (resolver, frames) = resolver_and_frames(&path, &addresses);
    let of_one_reader = resolver.resolve_all(&frames);
    let (resolver, frames) = resolver_and_frames(&path, &addresses);
    resolver.resolve(frames[0]);
    let of_two_readers = resolver.resolve_all(&frames);
    assert!(of_one_reader == of_two_readers);
    let found = resolver.memory_use().function_counts;
    let of_nobody = resolver.resolve_all(&frames);
    assert!(of_one_reader == of_nobody);
    assert_eq!(resolver.memory_use().function_counts.misses, found.misses);
}

/// Compares what the resolver says of `path`, or of a stripped copy of it, with what oracles say of `path`; lists what differs.
fn compare_stripped(path: &Path, stripped: Option<&Path>) {
    let count = if std::env::var_os(files::ALL).is_some() { 10_000 } else { SAMPLE };
    let subject = stripped.unwrap_or(path);
    let truth = Truth::of(path, stripped);
    let addresses = addresses(path, &truth, count);
    let ours = ours(subject, &addresses);
    let named = ours.iter().flatten().count();
    assert!(named as f64 >= SAME * count as f64, "{named} of {count} in {} have names", subject.display());
    let oracles = [
        ("GNU", oracles::gnu(path, &addresses)),
        ("LLVM", oracles::llvm(path, &addresses)),
        ("blazesym", Some(oracles::blazesym(path, &addresses))),
    ];
    for (oracle, theirs) in oracles {
        let Some(theirs) = theirs else { continue };
        let (mut same, mut compared) = (0_usize, 0_usize);
        for ((address, ours), theirs) in addresses.iter().zip(&ours).zip(theirs) {
            let (Some(ours), Some((theirs, _))) = (ours, theirs.last()) else { continue };
            if theirs == "??" {
                continue;
            }
            compared += 1;
            let names = truth.at(*address).unwrap();
            let is_there = |name: &str| names.iter().any(|known| known == name || is_same(known, name));
            if is_same(ours, theirs) || is_there(ours) && is_there(theirs) {
                same += 1;
            } else {
                println!("  {address:#x}: ours {ours}, {oracle} {theirs}; the symbols are {names:?}");
            }
        }
        println!("{}: {named} of {count} named; {oracle} names {compared}, {same} alike", subject.display());
        assert!(same as f64 >= SAME * compared as f64, "{oracle}: {same} of {compared} alike");
        assert!(compared * 10 >= count * 9, "{oracle} knows {compared} of {count} only");
    }
}

/// Whether two readers call one function so. Names of Go's functions have dots of their own; symbol tables have their type parameters,
/// and of assembly how it is called, Go's own tables do not.
fn is_same(one: &str, other: &str) -> bool {
    let is_go = |name: &str| name.contains('.') && !name.starts_with('_') && !name.contains(['$', '@']);
    let [one, other] = [one, other].map(|name| name.strip_suffix(".abi0").unwrap_or(name));
    if is_go(one) && is_go(other) { shown_name(one) == shown_name(other) } else { same_name(one, other) }
}

fn compare(path: &Path) {
    compare_stripped(path, None);
}

/// A shared library that gcc links with, or that lies where Debian has it.
fn library(name: &str) -> Option<PathBuf> {
    let gcc = Command::new("gcc").arg(format!("-print-file-name={name}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(gcc.stdout).ok()?.trim());
    let path = if path.is_absolute() { path } else { Path::new("/usr/lib/x86_64-linux-gnu").join(name) };
    let found = path.canonicalize().ok();
    assert!(found.is_some() || std::env::var_os("NODEPROF_REQUIRE_LIVE").is_none(), "no {name}");
    if found.is_none() {
        println!("no {name}: not compared");
    }
    found
}

/// The libraries of C, of C++ and of Python: stripped, `.dynsym` only, or with a debug file.
#[test]
fn agrees_on_libraries() {
    for name in ["libc.so.6", "libstdc++.so.6", "libpython3.11.so.1.0"] {
        if let Some(path) = library(name) {
            compare(&path);
        }
    }
}

/// A C++ program with deep inlining, and a Rust program in release mode with debug information.
#[test]
fn agrees_on_cpp_and_rust() {
    let directory = tempfile::tempdir().unwrap();
    let cpp = files::compile(directory.path(), &["g++", "-O2", "-g"], ("deep.cpp", files::CPP), "deep");
    let rust = ["rustc", "-O", "-g", "--edition=2024"];
    let rust = files::compile(directory.path(), &rust, ("words.rs", files::RUST), "words");
    cpp.iter().chain(&rust).for_each(|path| compare(path));
}

/// This test's own binary, which holds the agent.
#[test]
fn agrees_on_the_running_binary() {
    compare(&std::env::current_exe().unwrap());
}

/// A Go program, and the same one stripped, of which oracles know nothing: they are asked about the other one.
#[test]
fn agrees_on_go() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workloads/gotables/oracle.go");
    let directory = tempfile::tempdir().unwrap();
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp/go-build");
    let build = |name: &str, flags: &str| {
        let path = directory.path().join(name);
        let mut go = Command::new("go");
        go.args(["build", "-ldflags", flags, "-o"]).arg(&path).arg(&source);
        go.env("GOCACHE", &cache).env("GO111MODULE", "off").env("CGO_ENABLED", "0");
        match go.status() {
            Ok(status) => assert!(status.success(), "{go:?}"),
            Err(_) if std::env::var_os("NODEPROF_REQUIRE_LIVE").is_none() => return None,
            Err(error) => panic!("go: {error}"),
        }
        Some(path)
    };
    let (Some(plain), Some(stripped)) = (build("plain", ""), build("stripped", "-s -w")) else {
        println!("no go: not compared");
        return;
    };
    compare(&plain);
    compare_stripped(&plain, Some(&stripped));
}
