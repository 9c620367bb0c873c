//! What a run of the agent found: its JSON, its pprof, its log.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use agent::export::pprof::proto;
use prost::Message as _;
use serde::Deserialize;
use tempfile::TempDir;

/// A finished run.
pub(crate) struct Profiled {
    pub(crate) profile: Profile,
    /// Lines that the agent logged.
    pub(crate) log: Vec<String>,
    directory: TempDir,
}

/// The profile in the shape of `--format json`, as far as tests look at it.
#[derive(Deserialize)]
pub(crate) struct Profile {
    pub(crate) duration_seconds: f64,
    modules: Vec<Module>,
    pub(crate) functions: Vec<Function>,
    locations: Vec<Location>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) accounting: Books,
    kind: String,
    pub(crate) memory_growth: Vec<Growth>,
}

/// What page faults say of a process's memory, and what the kernel counts.
#[derive(Debug, Deserialize)]
pub(crate) struct Growth {
    pub(crate) pid: u32,
    /// Whether the process began within the window.
    pub(crate) new: bool,
    pub(crate) estimated: MemoryBytes,
    pub(crate) counted: Option<MemoryBytes>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct MemoryBytes {
    pub(crate) anon: i64,
    pub(crate) file: i64,
    pub(crate) shmem: i64,
}

#[derive(Deserialize)]
pub(crate) struct Module {
    pub(crate) path: String,
}

#[derive(Deserialize)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) named: bool,
}

#[derive(Deserialize)]
struct Location {
    module: Option<usize>,
    kind: String,
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    function: usize,
}

#[derive(Deserialize)]
pub(crate) struct Sample {
    locations: Vec<usize>,
    values: [u64; 2],
    pub(crate) pid: u32,
    pub(crate) comm: String,
    pub(crate) thread: Option<Thread>,
    /// Why the stack is not whole.
    pub(crate) truncated: Option<String>,
    /// Why the thread did not run.
    pub(crate) state: Option<String>,
    /// What a page fault made resident.
    pub(crate) memory: Option<String>,
    /// What kind of lock it waited for.
    pub(crate) lock: Option<String>,
    /// What ended its wait for it.
    pub(crate) ended: Option<String>,
    /// Whose wait the stack ended.
    pub(crate) woken: Option<Woken>,
}

#[derive(Deserialize)]
pub(crate) struct Woken {
    pub(crate) pid: u32,
}

#[derive(Deserialize)]
pub(crate) struct Thread {
    pub(crate) id: u32,
    pub(crate) name: String,
}

/// Waits that were too short to be asked for.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) shorter_than: u64,
    pub(crate) count: u64,
    pub(crate) nanoseconds: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Books {
    pub(crate) ticks: u64,
    pub(crate) idle: u64,
    pub(crate) not_selected: u64,
    pub(crate) left_out: LeftOut,
    pub(crate) expected: u64,
    pub(crate) emitted: u64,
    pub(crate) balances: bool,
    pub(crate) lost: BTreeMap<String, u64>,
    pub(crate) frames: u64,
    pub(crate) unresolved: BTreeMap<String, u64>,
}

/// One function on a stack.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) name: &'a str,
    pub(crate) named: bool,
    /// Path of the module; empty for markers.
    pub(crate) module: &'a str,
    /// `user`, `kernel` or `marker`.
    pub(crate) kind: &'a str,
}

impl Sample {
    pub(crate) fn count(&self) -> u64 {
        self.values[0]
    }

    /// One for each of the profile's sample types.
    pub(crate) fn values(&self) -> [u64; 2] {
        self.values
    }

    pub(crate) fn nanoseconds(&self) -> u64 {
        self.values[1]
    }
}

impl Profile {
    pub(crate) fn parse(json: &[u8]) -> Self {
        serde_json::from_slice(json).expect("JSON of the documented shape")
    }

    /// The functions on a sample's stack, leaf first.
    pub(crate) fn stack<'a>(&'a self, sample: &'a Sample) -> impl Iterator<Item = Frame<'a>> {
        sample.locations.iter().flat_map(|index| self.frames_at(&self.locations[*index]))
    }

    fn frames_at<'a>(&'a self, location: &'a Location) -> impl Iterator<Item = Frame<'a>> {
        let module = location.module.map_or("", |index| self.modules[index].path.as_str());
        location.lines.iter().map(move |line| {
            let Function { name, named } = &self.functions[line.function];
            Frame { name, named: *named, module, kind: &location.kind }
        })
    }

    /// Every frame of every sample.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.samples.iter().flat_map(|sample| self.stack(sample))
    }

    /// The memory of process `pid`.
    pub(crate) fn growth_of(&self, pid: u32) -> &Growth {
        self.memory_growth.iter().find(|growth| growth.pid == pid).expect("it was sampled")
    }

    /// Samples of process `pid`.
    pub(crate) fn of(&self, pid: u32) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.pid == pid)
    }

    /// How many samples of process `pid` there are, and how many nanoseconds they stand for.
    pub(crate) fn total_of(&self, pid: u32) -> (u64, u64) {
        self.of(pid)
            .fold((0, 0), |(count, time), sample| (count + sample.count(), time + sample.nanoseconds()))
    }

    /// How many of process `pid`'s samples have a frame on their stack that `is_it` accepts.
    pub(crate) fn count_with(&self, pid: u32, is_it: impl Fn(Frame<'_>) -> bool) -> u64 {
        self.of(pid).filter(|sample| self.stack(sample).any(&is_it)).map(Sample::count).sum()
    }
}

impl Books {
    pub(crate) fn lost(&self, cause: &str) -> u64 {
        *self.lost.get(cause).unwrap_or_else(|| panic!("{cause} is no cause"))
    }

    pub(crate) fn unresolved(&self, reason: &str) -> u64 {
        *self.unresolved.get(reason).unwrap_or_else(|| panic!("{reason} is no reason"))
    }

    /// Asserts that nothing is missing from the books, by the numbers and not by what they say of themselves.
    pub(crate) fn assert_balanced(&self) {
        assert!(self.balances, "{self:?}");
        assert_eq!(self.expected, self.emitted + self.lost.values().sum::<u64>(), "{self:?}");
        let apart = self.idle + self.not_selected + self.left_out.count;
        assert_eq!(self.ticks, self.expected + apart, "{self:?}");
    }
}

/// What the agent logs of one CPU at the end.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) cpu: u32,
    line: String,
}

impl Ledger {
    /// One of the ledger's numbers, such as `fired`.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let (_, rest) =
            self.line.split_once(&format!(" {name}: ")).unwrap_or_else(|| panic!("{name}: {self:?}"));
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().unwrap_or_else(|error| panic!("{name}: {error}: {self:?}"))
    }
}

fn read_profile(path: &Path) -> Profile {
    let json = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let profile = Profile::parse(&json);
    let Profile { accounting, samples, kind, .. } = &profile;
    accounting.assert_balanced();
    // A page fault that was sampled stands for others.
    if kind != "pagefaults" {
        assert_eq!(accounting.emitted, samples.iter().map(Sample::count).sum::<u64>());
    }
    profile
}

impl Profiled {
    /// Reads what a run of `profiler` wrote into `directory`. Its books must balance, and every sample of them be there.
    pub(crate) fn read(directory: TempDir, log: Vec<String>, profiler: &str) -> Self {
        let profile = read_profile(&directory.path().join(format!("{profiler}.json")));
        Self { profile, log, directory }
    }

    /// What another profiler of the same run found.
    pub(crate) fn of_profiler(&self, profiler: &str) -> Profile {
        read_profile(&self.file(&format!("{profiler}.json")))
    }

    /// A file that the agent wrote.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The same as pprof.
    pub(crate) fn pprof(&self) -> proto::Profile {
        decode_pprof(&fs::read(self.file("cpu.pb.gz")).expect("the agent wrote pprof"))
    }

    /// The same in a format for people: `cpu.folded`, `cpu.txt` or `cpu.svg`.
    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).expect("the agent wrote UTF-8")
    }

    /// Each CPU's books.
    pub(crate) fn ledgers(&self) -> Vec<Ledger> {
        let lines = self.log.iter().filter_map(|line| line.split_once(" ledger cpu="));
        let ledgers = lines.map(|(_, line)| {
            let cpu = line.split(' ').next().and_then(|cpu| cpu.parse().ok());
            Ledger { cpu: cpu.expect("a CPU number"), line: line.to_owned() }
        });
        ledgers.collect()
    }

    /// One CPU's books.
    pub(crate) fn ledger(&self, cpu: u32) -> Ledger {
        let mut ledgers = self.ledgers();
        let position = ledgers.iter().position(|ledger| ledger.cpu == cpu).expect("the CPU has a ledger");
        ledgers.swap_remove(position)
    }
}

/// Decodes gzip-compressed pprof.
pub(crate) fn decode_pprof(compressed: &[u8]) -> proto::Profile {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(compressed).read_to_end(&mut bytes).expect("gzip");
    proto::Profile::decode(bytes.as_slice()).expect("pprof")
}
