//! The agent's JSON profile (`nodeprof.profile/1`, documented in `agent/src/export/json.rs`): the parts that are used here.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

const SCHEMA: &str = "nodeprof.profile/1";

/// A profile.
#[derive(Debug, Deserialize)]
pub(crate) struct Profile {
    schema: String,
    /// When the window began: RFC 3339, UTC, milliseconds.
    pub(crate) started: String,
    /// Nanoseconds between two samples of a busy CPU.
    pub(crate) period: u64,
    /// Length of the window.
    pub(crate) duration_seconds: f64,
    modules: Vec<Module>,
    functions: Vec<Function>,
    locations: Vec<Location>,
    samples: Vec<Sample>,
    /// The books.
    pub(crate) accounting: Accounting,
}

#[derive(Debug, Deserialize)]
struct Module {
    path: String,
    start: String,
    file_offset: String,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: String,
    system_name: String,
    named: bool,
}

#[derive(Debug, Deserialize)]
struct Location {
    module: Option<usize>,
    address: String,
    kind: String,
    lines: Vec<Line>,
}

#[derive(Debug, Deserialize)]
struct Line {
    function: usize,
}

#[derive(Debug, Deserialize)]
struct Sample {
    locations: Vec<usize>,
    values: Vec<u64>,
    pid: i64,
    comm: Option<String>,
    truncated: Option<String>,
    state: Option<String>,
}

/// What the agent says about its own losses, in samples and frames.
#[derive(Debug, Deserialize)]
pub(crate) struct Accounting {
    /// Times that the timers fired.
    pub(crate) ticks: u64,
    /// Of these, on an idle CPU.
    pub(crate) idle: u64,
    /// Samples in the profile.
    pub(crate) emitted: u64,
    /// Samples that should be there.
    pub(crate) expected: u64,
    /// Frames of all samples.
    pub(crate) frames: u64,
    /// Samples that are not there, by cause.
    pub(crate) lost: BTreeMap<String, u64>,
}

/// The innermost function of samples, as the machine has it: the symbol that the address belongs to, not what was inlined there.
#[derive(Debug, PartialEq)]
pub(crate) struct LeafCount<'a> {
    pub(crate) pid: i64,
    /// The symbol as the file has it, not demangled; `None` if it has no name.
    pub(crate) symbol: Option<&'a str>,
    /// The file's path or a name in brackets; `None` outside all files.
    pub(crate) module: Option<&'a str>,
    /// Samples.
    pub(crate) count: u64,
}

/// User stacks that are alike, of one process.
#[derive(Debug, PartialEq)]
pub(crate) struct StackCount<'a> {
    /// The process.
    pub(crate) pid: i64,
    /// Its name, if it is known.
    pub(crate) comm: Option<&'a str>,
    /// User frames, leaf first. Empty where the sample has none.
    pub(crate) frames: Vec<UserFrame<'a>>,
    /// Why the stack is cut short, if it is.
    pub(crate) truncated: Option<&'a str>,
    /// Samples.
    pub(crate) count: u64,
}

/// One frame of a user stack.
#[derive(Debug, PartialEq)]
pub(crate) struct UserFrame<'a> {
    /// The symbol; `None` if the agent found none.
    pub(crate) symbol: Option<&'a str>,
    /// The module's path; `None` for memory that is no file.
    pub(crate) module: Option<&'a str>,
    /// Where in the module's file the code is; the address where there is no file.
    pub(crate) file_offset: u64,
}

impl Profile {
    /// Reads the file at `path`.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no profile of the agent", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let profile: Self = serde_json::from_str(text)?;
        ensure!(profile.schema == SCHEMA, "its schema is {:?} instead of {SCHEMA:?}", profile.schema);
        Ok(profile)
    }

    /// The leaf of each sample.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = LeafCount<'_>> {
        self.samples.iter().map(|sample| {
            let leaf = sample.locations.first().and_then(|location| self.locations.get(*location));
            let symbol = leaf.and_then(|leaf| self.symbol(leaf));
            let module = leaf.and_then(|leaf| self.module(leaf)).map(|module| &*module.path);
            LeafCount { pid: sample.pid, symbol, module, count: sample.values.first().copied().unwrap_or(0) }
        })
    }

    /// Waits of process `pid` in `state`, of an off-CPU profile.
    pub(crate) fn waits(&self, pid: u32, state: &str) -> u64 {
        let of_it = self.samples.iter().filter(|sample| sample.pid == i64::from(pid));
        let in_state = of_it.filter(|sample| sample.state.as_deref() == Some(state));
        in_state.filter_map(|sample| sample.values.first()).sum()
    }

    /// The user stack of each sample.
    pub(crate) fn user_stacks(&self) -> impl Iterator<Item = StackCount<'_>> {
        self.samples.iter().map(|sample| {
            let locations = sample.locations.iter().filter_map(|location| self.locations.get(*location));
            let frames = locations.filter(|location| location.kind == "user");
            StackCount {
                pid: sample.pid,
                comm: sample.comm.as_deref(),
                frames: frames.map(|location| self.user_frame(location)).collect(),
                truncated: sample.truncated.as_deref(),
                count: sample.values.first().copied().unwrap_or(0),
            }
        })
    }

    fn user_frame<'a>(&'a self, location: &'a Location) -> UserFrame<'a> {
        let module = self.module(location);
        let address = hex(&location.address);
        let start = module.map_or(0, |module| hex(&module.start).wrapping_sub(hex(&module.file_offset)));
        UserFrame {
            symbol: self.symbol(location),
            module: module.map(|module| &*module.path),
            file_offset: address.wrapping_sub(start),
        }
    }

    fn module(&self, location: &Location) -> Option<&Module> {
        self.modules.get(location.module?)
    }

    fn symbol<'a>(&'a self, location: &Location) -> Option<&'a str> {
        // Lines go from the innermost inlined function outwards; the last is the one with the symbol.
        let function = self.functions.get(location.lines.last()?.function)?;
        // Functions that never had another name have none for the system.
        let name = if function.system_name.is_empty() { &function.name } else { &function.system_name };
        function.named.then_some(name)
    }
}

/// A number as the profile writes addresses; what is none counts as 0, which no symbol has.
fn hex(text: &str) -> u64 {
    text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(schema: &str) -> Result<Profile> {
        Profile::parse(&format!(
            r#"{{"schema": "{schema}", "started": "2024-02-29T12:34:56.789Z", "duration_seconds": 2.5, "period": 10101010,
            "kind": "cpu",
            "modules": [{{"path": "/usr/bin/app", "start": "0x402000", "file_offset": "0x1000"}}],
            "functions": [{{"name": "app::main", "system_name": "_ZN3app4mainE", "named": true}},
                          {{"name": "app::inlined", "system_name": "", "named": true}},
                          {{"name": "app+0x10", "system_name": "", "named": false}}],
            "locations": [{{"module": 0, "address": "0x402010", "kind": "user",
                            "lines": [{{"function": 1}}, {{"function": 0}}]}},
                          {{"module": 0, "address": "0x402020", "kind": "user", "lines": [{{"function": 2}}]}},
                          {{"module": null, "address": "0xf000", "kind": "kernel", "lines": []}}],
            "samples": [{{"locations": [0, 1], "values": [3, 30], "pid": 42, "comm": "app", "truncated": null}},
                        {{"locations": [1], "values": [1, 10], "pid": 42, "comm": "app", "truncated": "depth"}},
                        {{"locations": [2], "values": [2, 20], "pid": 43, "comm": null, "truncated": null}}],
            "accounting": {{"ticks": 9, "idle": 3, "emitted": 6, "expected": 6, "frames": 7,
                            "lost": {{"ring_full": 0}}}}}}"#
        ))
    }

    /// The leaf is the first location's outermost line by its raw name; what has no name or no module says so.
    #[test]
    fn leaves_are_symbols_of_addresses() {
        let profile = profile(SCHEMA).unwrap();
        let leaf = |pid, symbol, module, count| LeafCount { pid, symbol, module, count };
        assert_eq!(
            profile.leaves().collect::<Vec<_>>(),
            [
                leaf(42, Some("_ZN3app4mainE"), Some("/usr/bin/app"), 3),
                leaf(42, None, Some("/usr/bin/app"), 1),
                leaf(43, None, None, 2),
            ]
        );
    }

    /// User frames come leaf first with the place in the file that they stand at; kernel frames are left out.
    #[test]
    fn user_stacks_are_read() {
        let profile = profile(SCHEMA).unwrap();
        let module = Some("/usr/bin/app");
        let main = UserFrame { symbol: Some("_ZN3app4mainE"), module, file_offset: 0x1010 };
        let nameless = || UserFrame { symbol: None, module, file_offset: 0x1020 };
        let stacks: Vec<_> = profile.user_stacks().collect();
        assert_eq!(stacks[0].frames, [main, nameless()]);
        assert_eq!((&*stacks[1].frames, stacks[1].truncated), (&[nameless()][..], Some("depth")));
        assert_eq!((stacks[2].frames.len(), stacks[2].comm, stacks[2].count), (0, None, 2));
        assert_eq!((stacks[0].pid, stacks[0].comm, stacks[0].count), (42, Some("app"), 3));
    }

    /// Waits are summed by process and state; samples without a state are none.
    #[test]
    fn waits_are_summed_by_state() {
        let mut profile = profile(SCHEMA).unwrap();
        assert_eq!(profile.waits(42, "sleep"), 0);
        for (sample, state) in profile.samples.iter_mut().zip(["sleep", "runnable", "sleep"]) {
            sample.state = Some(state.to_owned());
        }
        profile.samples[2].pid = 42;
        assert_eq!((profile.waits(42, "sleep"), profile.waits(42, "runnable")), (5, 1));
        assert_eq!(profile.waits(43, "sleep"), 0);
    }

    /// A profile of another schema is refused by name.
    #[test]
    fn another_schema_is_refused() {
        assert!(profile("nodeprof.profile/2").unwrap_err().to_string().contains("nodeprof.profile/2"));
    }
}
