//! Files with debug information, and one opened as the resolver opens it.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use object::{Object as _, ObjectSymbol as _};

use crate::symbol::dwarf::{
    DebugLines, DwarfCache, DwarfLimits, LinesRefused, LinkedFiles, SharedSource, SourceLine,
};
use crate::symbol::elf::{ElfImage, ElfLimits, FunctionIndex};
use crate::symbol::read_at::FileAt;

/// Set to anything: 10,000 addresses of every file are compared, which takes minutes.
pub(in crate::symbol) const ALL: &str = "NODEPROF_DWARF_ALL";

/// What the whole of the caches may take in tests, as `--symbol-memory` gives it by default.
pub(super) const BUDGET: usize = 12 << 20;

pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) image: ElfImage,
    pub(super) cache: Arc<DwarfCache>,
    pub(super) source: SharedSource,
    lines: DebugLines,
    /// Path of the supplementary file, if there is to be one.
    pub(super) supplement: Option<PathBuf>,
    symbols: OnceCell<(FunctionIndex, HashMap<u64, Vec<String>>)>,
}

impl Opened {
    pub(super) fn new(path: &Path) -> Self {
        Self::with(path, BUDGET, DwarfLimits::new(u64::MAX)).unwrap()
    }

    pub(super) fn with(path: &Path, budget: usize, limits: DwarfLimits) -> Result<Self, LinesRefused> {
        let source: SharedSource = Arc::new(FileAt::new(File::open(path).unwrap()).unwrap());
        Self::from_source(path, source, DwarfCache::new(budget, limits))
    }

    pub(super) fn from_source(
        path: &Path,
        source: SharedSource,
        cache: Arc<DwarfCache>,
    ) -> Result<Self, LinesRefused> {
        let image = ElfImage::parse(&*source, &ElfLimits::default()).map_err(|_| LinesRefused::Malformed)?;
        let lines = DebugLines::open(&*source, &image, &cache)?;
        Ok(Self {
            path: path.to_owned(),
            image,
            cache,
            source,
            lines,
            supplement: None,
            symbols: OnceCell::new(),
        })
    }

    pub(super) fn lines(&self, address: u64) -> Result<Vec<SourceLine>, LinesRefused> {
        self.lines.lines(self.source.clone(), self, address)
    }

    /// The names of the symbol that covers `address`, all of them: what the symbol table would call a function.
    pub(super) fn symbols(&self, address: u64) -> &[String] {
        let (index, names) = self.symbols.get_or_init(|| {
            let index = FunctionIndex::build(&*self.source, &self.image, &ElfLimits::default()).unwrap();
            (index, names_by_address(&self.path))
        });
        index.lookup(address).and_then(|function| names.get(&function.start)).map_or(&[], Vec::as_slice)
    }

    /// Bytes that are held: the file's own and the caches'.
    pub(super) fn bytes(&self) -> usize {
        let usage = self.cache.memory_use();
        self.lines.heap_bytes() + usage.block_bytes + usage.unit_bytes
    }

    pub(super) fn own_bytes(&self) -> usize {
        self.lines.heap_bytes()
    }

    /// `count` addresses of code, always the same.
    pub(super) fn addresses(&self, count: usize) -> Vec<u64> {
        let sections: Vec<_> = self.image.sections().iter().filter(|section| section.is_code()).collect();
        let total: u64 = sections.iter().map(|section| section.size).sum();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        (0..count)
            .map(|_| {
                let mut into = random.below(total);
                let section = sections.iter().find(|section| {
                    let within = into < section.size;
                    if !within {
                        into -= section.size;
                    }
                    within
                });
                section.unwrap().address + into
            })
            .collect()
    }
}

impl LinkedFiles for Opened {
    fn package(&self) -> Option<(Arc<str>, SharedSource)> {
        let path = format!("{}.dwp", self.path.display());
        Some((path.as_str().into(), self.open(&path)?))
    }

    fn open(&self, path: &str) -> Option<SharedSource> {
        Some(Arc::new(FileAt::new(File::open(path).ok()?).ok()?))
    }

    fn supplement(&self) -> Option<SharedSource> {
        self.open(self.supplement.as_ref()?.to_str()?)
    }
}

/// All names of all symbols.
fn names_by_address(path: &Path) -> HashMap<u64, Vec<String>> {
    let bytes = std::fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let mut names: HashMap<u64, Vec<String>> = HashMap::new();
    for symbol in file.symbols().chain(file.dynamic_symbols()) {
        let name = String::from_utf8_lossy(symbol.name_bytes().unwrap()).into_owned();
        names.entry(symbol.address()).or_default().push(name);
    }
    names
}

/// xorshift64*: the same numbers every time.
pub(in crate::symbol) struct Random(pub(in crate::symbol) u64);

impl Random {
    pub(in crate::symbol) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8) % end
    }
}

/// The debug file of the C library that this test runs with (package libc6-dbg).
pub(super) fn libc_debug() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let path =
        maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("libc.so"));
    debug_file(Path::new(path?))
}

/// The separate debug file of `path`, by build id.
pub(in crate::symbol) fn debug_file(path: &Path) -> Option<PathBuf> {
    let file = FileAt::new(File::open(path).ok()?).ok()?;
    let image = ElfImage::parse(&file, &ElfLimits::default()).ok()?;
    let id = image.build_id()?.to_string();
    let (first, rest) = id.split_at_checked(2)?;
    let path = PathBuf::from(format!("/usr/lib/debug/.build-id/{first}/{rest}.debug"));
    path.exists().then_some(path)
}

/// Compiles `source` with `command` into `name` in `directory`; None where there is no such compiler.
pub(in crate::symbol) fn compile(
    directory: &Path,
    command: &[&str],
    source: (&str, &str),
    name: &str,
) -> Option<PathBuf> {
    let (file, text) = source;
    std::fs::write(directory.join(file), text).unwrap();
    let (program, arguments) = command.split_first().unwrap();
    let mut compiler = Command::new(program);
    let status = compiler.args(arguments).args([file, "-o", name]).current_dir(directory).status();
    match status {
        Ok(status) => assert!(status.success(), "{command:?} failed"),
        Err(_) if std::env::var_os("NODEPROF_REQUIRE_LIVE").is_none() => {
            println!("no {program}: not compared");
            return None;
        }
        Err(error) => panic!("{program}: {error}"),
    }
    Some(directory.join(name))
}

/// C++ with containers, algorithms and lambdas that are inlined ten deep.
pub(in crate::symbol) const CPP: &str = r#"
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <regex>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

template <int N> struct Nested {
    static inline int run(int x) { return Nested<N - 1>::run(x * 3 + N) ^ (x >> 1); }
};
template <> struct Nested<0> {
    static inline int run(int x) { return x % 7 ? x + 1 : x / 3; }
};

struct Shape { virtual ~Shape() = default; virtual double area() const = 0; };
struct Square : Shape { double side; explicit Square(double s) : side(s) {} double area() const override { return side * side; } };
struct Circle : Shape { double r; explicit Circle(double r) : r(r) {} double area() const override { return 3.14 * r * r; } };

static std::map<std::string, std::vector<int>> index_words(const std::string &text) {
    std::map<std::string, std::vector<int>> index;
    std::istringstream in(text);
    std::string word;
    for (int at = 0; in >> word; at++) {
        std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return std::tolower(c); });
        index[word].push_back(Nested<12>::run(at));
    }
    return index;
}

int main(int argc, char **argv) {
    std::mt19937 random(42);
    std::vector<int> numbers(1000 + argc);
    std::generate(numbers.begin(), numbers.end(), [&] { return static_cast<int>(random()); });
    std::sort(numbers.begin(), numbers.end(), [](int a, int b) { return Nested<8>::run(a) < Nested<8>::run(b); });
    std::unordered_map<int, std::shared_ptr<Shape>> shapes;
    for (int n : numbers)
        if (n & 1) shapes[n % 97] = std::make_shared<Square>(n); else shapes[n % 89] = std::make_shared<Circle>(n);
    double sum = std::accumulate(shapes.begin(), shapes.end(), 0.0, [](double s, const auto &e) { return s + e.second->area(); });
    std::regex pattern("([a-z]+)=([0-9]+)");
    std::smatch match;
    std::string text = argc > 1 ? argv[1] : "alpha=1 beta=2";
    int found = std::regex_search(text, match, pattern) ? match.size() : 0;
    auto index = index_words(text);
    std::function<int(int)> recurse = [&](int n) { return n < 2 ? n : recurse(n - 1) + recurse(n - 2); };
    return static_cast<int>(sum) + found + static_cast<int>(index.size()) + recurse(argc + 5);
}
"#;

/// Rust with iterators, closures and generic collections.
pub(in crate::symbol) const RUST: &str = r#"
use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Clone, PartialEq)]
enum Token { Number(f64), Word(String), Symbol(char) }

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        if c.is_ascii_digit() {
            let mut number = String::new();
            while let Some(c) = chars.next_if(|c| c.is_ascii_digit() || *c == '.') { number.push(c); }
            tokens.push(number.parse().map_or(Token::Word(number), Token::Number));
        } else if c.is_alphabetic() {
            let mut word = String::new();
            while let Some(c) = chars.next_if(|c| c.is_alphanumeric()) { word.push(c); }
            tokens.push(Token::Word(word));
        } else { chars.next(); if !c.is_whitespace() { tokens.push(Token::Symbol(c)); } }
    }
    tokens
}

fn main() {
    let text = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let mut counts: HashMap<String, usize> = HashMap::new();
    for token in tokens(&text) { *counts.entry(format!("{token:?}")).or_default() += 1; }
    let sorted: BTreeMap<_, _> = counts.iter().map(|(name, count)| (*count, name.clone())).collect();
    let total: usize = sorted.keys().copied().filter(|n| n % 2 == 0).map(|n| n * n).sum();
    let mut numbers: Vec<u64> = (0..1000).map(|n: u64| n.wrapping_mul(0x9e37_79b9) ^ total as u64).collect();
    numbers.sort_unstable_by_key(|n| std::cmp::Reverse(n.rotate_left(7)));
    println!("{total} {:?} {}", sorted, numbers.iter().fold(0u64, |sum, n| sum.wrapping_add(*n)));
}
"#;
