//! The same debug information in other forms: compressed by zstd, and with what two programs have in common in a supplementary
//! file. What is said of each address is the same, in bounded memory.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use agent::symbol::dwarf::{
    DebugLines, DwarfCache, DwarfLimits, LinesRefused, LinkedFiles, SharedSource, SourceLine,
};
use agent::symbol::elf::{ElfImage, ElfLimits};
use agent::symbol::read_at::FileAt;
use harness::counted_heap::{self, CountedHeap};
use harness::require;

#[global_allocator]
static HEAP: CountedHeap = CountedHeap;

/// Allocations are counted for all threads together.
static ALONE: Mutex<()> = Mutex::new(());

/// Addresses that are compared.
const ADDRESSES: u64 = 1_000;
/// What the caches may take.
const BUDGET: usize = 12 << 20;

/// Templates that are inlined, and more of the library than the caches' budget holds.
const PROGRAM: &str = r#"
#include <algorithm>
#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

template <int N> struct Nested {
    static inline int run(int x) { return Nested<N - 1>::run(x * 3 + N) ^ (x >> 1); }
};
template <> struct Nested<0> {
    static inline int run(int x) { return x % 7 ? x + 1 : x / 3; }
};

int main(int argc, char **argv) {
    std::map<std::string, std::vector<int>> index;
    std::istringstream in(argc > 1 ? argv[1] : "alpha=1 beta=2");
    std::string word;
    for (int at = 0; in >> word; at++) {
        std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return std::tolower(c); });
        index[word].push_back(Nested<12>::run(at));
    }
    std::vector<int> numbers(1000 + argc);
    std::sort(numbers.begin(), numbers.end(), [](int a, int b) { return Nested<8>::run(a) < Nested<8>::run(b); });
    std::smatch match;
    return std::regex_search(word, match, std::regex("([a-z]+)=([0-9]+)")) + MORE;
}
"#;

struct Linked(Option<PathBuf>);

impl LinkedFiles for Linked {
    fn package(&self) -> Option<(Arc<str>, SharedSource)> {
        None
    }

    fn open(&self, _path: &str) -> Option<SharedSource> {
        None
    }

    fn supplement(&self) -> Option<SharedSource> {
        self.0.as_deref().map(source)
    }
}

fn source(path: &Path) -> SharedSource {
    Arc::new(FileAt::new(File::open(path).expect("a file")).expect("a length"))
}

/// What was said of the addresses.
struct Answers {
    lines: Vec<Result<Vec<SourceLine>, LinesRefused>>,
    /// Bytes that are allocated afterwards, that the caches state, and that were allocated at most.
    allocated: usize,
    stated: usize,
    peak: usize,
    /// Look-ups whose names are in a supplementary file that is not there.
    supplement_missing: u64,
}

impl Answers {
    /// How many addresses have a chain of more than one function.
    fn inlined(&self) -> usize {
        self.lines.iter().flatten().filter(|chain| chain.len() > 1).count()
    }
}

/// Asks for addresses spread over the code of `path`.
fn ask(path: &Path, supplement: Option<&Path>, limits: DwarfLimits) -> Result<Answers, LinesRefused> {
    let mut answers = Vec::with_capacity(ADDRESSES as usize);
    let begun = counted_heap::reset_peak();
    let source = source(path);
    let linked = Linked(supplement.map(Path::to_owned));
    let image = ElfImage::parse(&*source, &ElfLimits::default()).expect("an ELF file");
    let cache = DwarfCache::new(BUDGET, limits);
    let lines = DebugLines::open(&*source, &image, &cache)?;
    let code = image.sections().iter().filter(|section| section.is_code());
    let text = code.max_by_key(|section| section.size).expect("code");
    let mut held = 0;
    for step in 0..ADDRESSES {
        let before = counted_heap::now();
        let found = lines.lines(source.clone(), &linked, text.address + text.size * step / ADDRESSES);
        // What is compared is none of the reader's.
        let kept = found.clone();
        drop(found);
        answers.push(kept);
        held += counted_heap::now().saturating_sub(before);
    }
    let usage = cache.memory_use();
    let answers = Answers {
        allocated: counted_heap::now().saturating_sub(begun),
        stated: lines.heap_bytes() + usage.block_bytes + usage.unit_bytes,
        peak: counted_heap::peak().saturating_sub(begun),
        supplement_missing: usage.refused[LinesRefused::SupplementaryFile as usize],
        lines: answers,
    };
    println!(
        "{}: {} with lines, {} inlined; {} KiB allocated ({} while asking), {} KiB stated, peak {} KiB",
        path.display(),
        answers.lines.iter().flatten().count(),
        answers.inlined(),
        answers.allocated >> 10,
        held >> 10,
        answers.stated >> 10,
        answers.peak >> 10
    );
    Ok(answers)
}

/// Compiles the program into `name`; `more` makes it another one.
fn build(directory: &Path, name: &str, more: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(directory.join("program.cc"), PROGRAM).expect("written");
    let mut compiler = Command::new("g++");
    compiler.args(["-O2", "-g", "-gz=none", &format!("-DMORE={more}"), "program.cc", "-o", name]);
    assert!(compiler.current_dir(directory).status().expect("g++ runs").success());
    path
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    require(program, found.is_ok_and(|status| status.success()))
}

/// Writes `path` anew with its debug sections as `objcopy --compress-debug-sections=zstd` makes them, which not every binutils can;
/// returns how many bytes they had.
fn compress(path: &Path, to: &Path) -> u64 {
    let mut file = fs::read(path).expect("a file");
    let image = ElfImage::parse(&file, &ElfLimits::default()).expect("an ELF file");
    let word = |file: &[u8], at: usize| {
        u64::from_le_bytes(file.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).expect("a word"))
    };
    let table = word(&file, 40) as usize;
    let names = ["info", "abbrev", "line", "line_str", "str", "rnglists", "aranges"];
    let mut total = 0;
    for name in names {
        let name = format!(".debug_{name}");
        let Some(section) = image.section_named(&file, &name).copied() else { continue };
        let (start, size) = (section.file_offset as usize, section.size as usize);
        let index = (0..image.sections().len()).find(|index| {
            let header = table + 64 * index;
            word(&file, header + 24) == section.file_offset && word(&file, header + 32) == section.size
        });
        let header = table + 64 * index.expect("the section's header");
        // `Elf64_Chdr`: ELFCOMPRESS_ZSTD, reserved, size, alignment.
        let mut packed = [2_u32, 0].map(u32::to_le_bytes).concat();
        packed.extend([section.size, 1].map(u64::to_le_bytes).concat());
        packed.extend(zstd(&file[start..start + size]));
        let place = [file.len() as u64, packed.len() as u64].map(u64::to_le_bytes).concat();
        let flags = section.flags.0 | 1 << 11;
        file[header + 8..header + 16].copy_from_slice(&flags.to_le_bytes());
        file[header + 24..header + 40].copy_from_slice(&place);
        file.extend(packed);
        total += section.size;
    }
    fs::write(to, file).expect("written");
    total
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut command = Command::new("zstd");
    let mut child =
        command.args(["-3", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("zstd runs");
    let mut input = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(bytes).expect("written"));
        let output = child.wait_with_output().expect("an end");
        assert!(output.status.success());
        output.stdout
    })
}

/// Sections compressed by zstd say the same, and take no more memory afterwards; at most what they hold comes on top while
/// they are read. A file with more than is unpacked is refused by the sizes that it states.
#[test]
fn compressed_by_zstd() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if ![has("g++"), has("zstd")].iter().all(|has| *has) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let plain = build(directory.path(), "plain", "1");
    let packed = directory.path().join("packed");
    let unpacked = compress(&plain, &packed);
    let limits = DwarfLimits::new(u64::MAX);
    let expected = ask(&plain, None, limits).expect("debug information");
    let found = ask(&packed, None, limits).expect("debug information");
    assert!(expected.inlined() > 100, "{} inlined", expected.inlined());
    assert!(found.lines == expected.lines);
    let stated = found.stated + (64 << 10);
    assert!(found.allocated <= stated + lines_bytes(&found), "{} bytes are allocated", found.allocated);
    // What is unpacked is there twice for a moment, and the decoder has a window.
    let most = expected.peak + 3 * unpacked as usize;
    assert!(found.peak <= most, "{} bytes at most, {most} expected", found.peak);

    let limits = DwarfLimits { unpacked_bytes: unpacked - 1, ..limits };
    assert_eq!(ask(&packed, None, limits).err(), Some(LinesRefused::ModuleTooLarge));
}

/// What the answers themselves take, which the test keeps.
fn lines_bytes(answers: &Answers) -> usize {
    let chains = answers.lines.iter().flatten();
    let bytes = |line: &SourceLine| {
        let name = line.function.as_ref().map_or(0, String::len);
        // Paths are shared by the lines of a unit, until the unit is dropped.
        2 * (size_of::<SourceLine>() + name + line.file.as_ref().map_or(0, |path| path.len()))
    };
    chains.flatten().map(bytes).sum()
}

/// Names and declarations that dwz has moved into a supplementary file are found there; without it lines are the same and names are
/// missing, which is counted. Memory stays as stated.
#[test]
fn supplementary_files() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if ![has("g++"), has("dwz")].iter().all(|has| *has) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (plain, other) = (build(directory.path(), "plain", "1"), build(directory.path(), "other", "2"));
    let moved = directory.path().join("moved");
    fs::copy(&plain, &moved).expect("copied");
    let mut dwz = Command::new("dwz");
    dwz.args(["-m", "shared.debug"]).args([&moved, &other]).current_dir(directory.path());
    assert!(dwz.status().expect("dwz runs").success());
    let supplement = directory.path().join("shared.debug");
    assert!(fs::metadata(&supplement).expect("a supplementary file").len() > 100 << 10);

    let limits = DwarfLimits::new(u64::MAX);
    let expected = ask(&plain, None, limits).expect("debug information");
    let found = ask(&moved, Some(&supplement), limits).expect("debug information");
    assert!(expected.inlined() > 100, "{} inlined", expected.inlined());
    assert!(found.lines == expected.lines);
    assert_eq!(found.supplement_missing, 0);
    let stated = found.stated + (64 << 10);
    assert!(found.allocated <= stated + lines_bytes(&found), "{} bytes are allocated", found.allocated);
    assert!(found.peak < 2 * BUDGET, "{} bytes at most", found.peak);

    let without = ask(&moved, None, limits).expect("debug information");
    assert!(without.supplement_missing > 100, "{} names are missing", without.supplement_missing);
    let places = |answers: &Answers| -> Vec<Vec<(Option<Arc<str>>, u32)>> {
        let chain =
            |chain: &Vec<SourceLine>| chain.iter().map(|line| (line.file.clone(), line.line)).collect();
        answers.lines.iter().flatten().map(chain).collect()
    };
    assert!(places(&without) == places(&expected));

    // A file that is no supplementary one is as good as none.
    let wrong = ask(&moved, Some(&directory.path().join("program.cc")), limits).expect("debug information");
    assert!(wrong.lines == without.lines);
}
