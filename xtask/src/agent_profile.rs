//! The agent's JSON profile (`nodeprof.profile/1`, documented in `agent/src/export/json.rs`): the parts that are used here.

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
            // Lines go from the innermost inlined function outwards; the last is the one with the symbol.
            let line = leaf.and_then(|leaf| leaf.lines.last());
            let function = line.and_then(|line| self.functions.get(line.function));
            let symbol = function.filter(|function| function.named).map(|function| {
                // Functions that never had another name have none for the system.
                if function.system_name.is_empty() { &*function.name } else { &*function.system_name }
            });
            let module = leaf.and_then(|leaf| self.modules.get(leaf.module?)).map(|module| &*module.path);
            LeafCount { pid: sample.pid, symbol, module, count: sample.values.first().copied().unwrap_or(0) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(schema: &str) -> Result<Profile> {
        Profile::parse(&format!(
            r#"{{"schema": "{schema}", "started": "2024-02-29T12:34:56.789Z", "duration_seconds": 2.5, "period": 10101010,
            "kind": "cpu",
            "modules": [{{"path": "/usr/bin/app"}}],
            "functions": [{{"name": "app::main", "system_name": "_ZN3app4mainE", "named": true}},
                          {{"name": "app::inlined", "system_name": "", "named": true}},
                          {{"name": "app+0x10", "system_name": "", "named": false}}],
            "locations": [{{"module": 0, "lines": [{{"function": 1}}, {{"function": 0}}]}},
                          {{"module": 0, "lines": [{{"function": 2}}]}},
                          {{"module": null, "lines": []}}],
            "samples": [{{"locations": [0, 1], "values": [3, 30], "pid": 42}},
                        {{"locations": [1], "values": [1, 10], "pid": 42}},
                        {{"locations": [2], "values": [2, 20], "pid": 43}}],
            "accounting": {{"ticks": 9, "idle": 3, "emitted": 6, "expected": 6, "frames": 7}}}}"#
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

    /// A profile of another schema is refused by name.
    #[test]
    fn another_schema_is_refused() {
        assert!(profile("nodeprof.profile/2").unwrap_err().to_string().contains("nodeprof.profile/2"));
    }
}
