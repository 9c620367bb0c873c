//! JSON for scripts: the tables of the neutral model, with names instead of enum variants.
//!
//! The shape is stable; an incompatible change gives [`SCHEMA`] another number. Fields may be added.
//!
//! ```json
//! {
//!   "schema": "nodeprof.profile/1",
//!   "kind": "cpu",
//!   "host": "node-1",
//!   "started": "2024-02-29T12:34:56.789Z",
//!   "duration_seconds": 10.0,
//!   "sample_types": [{"name": "samples", "unit": "count"}, {"name": "cpu", "unit": "nanoseconds"}],
//!   "period_type": {"name": "cpu", "unit": "nanoseconds"},
//!   "period": 10101010,
//!   "modules": [{"path": "/usr/bin/app", "build_id": "00ff…", "start": "0x1000", "limit": "0x9000",
//!                "file_offset": "0x1000"}],
//!   "functions": [{"name": "app::main", "system_name": "_ZN3app4mainE",
//!                  "file": "src/main.rs", "named": true}],
//!   "locations": [{"module": 0, "address": "0x1100", "kind": "user",
//!                  "lines": [{"function": 0, "line": 7}]}],
//!   "samples": [{"locations": [0], "values": [1, 10101010], "pid": 42, "comm": "app",
//!                "thread": {"id": 43, "name": "worker"}, "truncated": "depth",
//!                "state": null, "memory": null, "lock": null, "ended": null, "woken": {"pid": 7, "comm": "db"}}],
//!   "accounting": {"ticks": 40, "idle": 28, "not_selected": 0,
//!                  "left_out": {"shorter_than": 0, "count": 0, "nanoseconds": 0},
//!                  "expected": 12, "emitted": 10, "balances": true,
//!                  "lost": {"kernel_skipped": 2, …}, "truncated": {"depth": 1, …},
//!                  "frames": 23, "unresolved": {"stripped": 1, …}},
//!   "memory_growth": [{"pid": 42, "comm": "app", "new": false,
//!                      "estimated": {"anon": 4096, "file": 0, "shmem": 0, "unknown": 0},
//!                      "counted": {"anon": 4096, "file": 0, "shmem": 0}}]
//! }
//! ```
//!
//! `module`, `function` and `locations` are indices (from 0) into the arrays of those names. `locations` of a
//! sample goes from the leaf to the root, `lines` of a location from the innermost inlined function outwards.
//! Addresses are strings in hex, because a JSON number cannot be relied upon beyond 2⁵³. What is not known is
//! `null`; `limit` is `"0x0"` and `line` is 0 then. All causes and reasons are always there.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::{Serialize, Serializer};

use crate::profile::accounting::{Accounting, LeftOut, LostCause, TruncatedCause, UnresolvedReason};
use crate::profile::model::{self, FrameKind};
use crate::time_format::rfc3339_millis;

/// Value of the field `schema`.
pub const SCHEMA: &str = "nodeprof.profile/1";

/// Writes the profile as one JSON object and a line end.
pub fn write(profile: &model::Profile, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &Profile::from(profile))?;
    out.write_all(b"\n")?;
    out.flush()
}

#[derive(Serialize)]
struct Profile<'a> {
    schema: &'static str,
    kind: &'static str,
    host: &'a str,
    started: String,
    duration_seconds: f64,
    sample_types: Vec<ValueType>,
    period_type: ValueType,
    period: i64,
    modules: Vec<Module<'a>>,
    functions: Vec<Function<'a>>,
    locations: Vec<Location>,
    samples: Vec<Sample<'a>>,
    accounting: Books,
    memory_growth: Vec<Growth<'a>>,
}

impl<'a> From<&'a model::Profile> for Profile<'a> {
    fn from(profile: &'a model::Profile) -> Self {
        Self {
            schema: SCHEMA,
            kind: profile.kind.name(),
            host: &profile.host,
            started: rfc3339_millis(profile.started),
            duration_seconds: profile.duration.as_secs_f64(),
            sample_types: profile.sample_types.iter().copied().map(ValueType::from).collect(),
            period_type: profile.period_type.into(),
            period: profile.period,
            modules: profile.modules.iter().map(Module::from).collect(),
            functions: profile.functions.iter().map(Function::from).collect(),
            locations: profile.locations.iter().map(Location::from).collect(),
            samples: profile.samples.iter().map(Sample::from).collect(),
            accounting: Books::from(&profile.accounting),
            memory_growth: profile.memory_growth.iter().map(Growth::from).collect(),
        }
    }
}

#[derive(Serialize)]
struct ValueType {
    name: &'static str,
    unit: &'static str,
}

impl From<model::ValueType> for ValueType {
    fn from(value: model::ValueType) -> Self {
        Self { name: value.name, unit: value.unit }
    }
}

/// A number that JSON shows as a string in hex.
struct Hex(u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

#[derive(Serialize)]
struct Module<'a> {
    path: &'a str,
    build_id: Option<&'a str>,
    start: Hex,
    limit: Hex,
    file_offset: Hex,
}

impl<'a> From<&'a model::Module> for Module<'a> {
    fn from(module: &'a model::Module) -> Self {
        Self {
            path: &module.path,
            build_id: module.build_id.as_deref(),
            start: Hex(module.start),
            limit: Hex(module.limit),
            file_offset: Hex(module.file_offset),
        }
    }
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    system_name: &'a str,
    file: Option<&'a str>,
    named: bool,
}

impl<'a> From<&'a model::Function> for Function<'a> {
    fn from(function: &'a model::Function) -> Self {
        Self {
            name: &function.name,
            system_name: &function.system_name,
            file: function.file.as_deref(),
            named: function.is_named(),
        }
    }
}

#[derive(Serialize)]
struct Location {
    module: Option<usize>,
    address: Hex,
    kind: &'static str,
    lines: Vec<Line>,
}

impl From<&model::Location> for Location {
    fn from(location: &model::Location) -> Self {
        let kind = match location.kind {
            FrameKind::User => "user",
            FrameKind::Kernel => "kernel",
            FrameKind::Marker => "marker",
        };
        let line = |line: &model::Line| Line { function: line.function, line: line.line };
        Self {
            module: location.module,
            address: Hex(location.address),
            kind,
            lines: location.lines.iter().map(line).collect(),
        }
    }
}

#[derive(Serialize)]
struct Line {
    function: usize,
    line: u32,
}

#[derive(Serialize)]
struct Sample<'a> {
    locations: &'a [usize],
    values: &'a [i64],
    pid: u32,
    comm: &'a str,
    thread: Option<Thread<'a>>,
    truncated: Option<&'static str>,
    state: Option<&'static str>,
    memory: Option<&'static str>,
    lock: Option<&'static str>,
    ended: Option<&'static str>,
    woken: Option<Woken<'a>>,
}

impl<'a> From<&'a model::Sample> for Sample<'a> {
    fn from(sample: &'a model::Sample) -> Self {
        Self {
            locations: &sample.locations,
            values: &sample.values,
            pid: sample.labels.pid,
            comm: &sample.labels.comm,
            thread: sample.labels.thread.as_ref().map(|thread| Thread { id: thread.id, name: &thread.name }),
            truncated: sample.labels.truncated,
            state: sample.labels.state,
            memory: sample.labels.memory,
            lock: sample.labels.lock,
            ended: sample.labels.ended,
            woken: sample.labels.woken.as_ref().map(|woken| Woken { pid: woken.pid, comm: &woken.comm }),
        }
    }
}

#[derive(Serialize)]
struct Thread<'a> {
    id: u32,
    name: &'a str,
}

#[derive(Serialize)]
struct Growth<'a> {
    pid: u32,
    comm: &'a str,
    new: bool,
    estimated: BTreeMap<&'static str, i64>,
    counted: Option<BTreeMap<&'static str, i64>>,
}

impl<'a> From<&'a model::MemoryGrowth> for Growth<'a> {
    fn from(growth: &'a model::MemoryGrowth) -> Self {
        let by_kind = |bytes: &model::MemoryBytes| {
            BTreeMap::from([("anon", bytes.anon), ("file", bytes.file), ("shmem", bytes.shmem)])
        };
        let mut estimated = by_kind(&growth.estimated);
        estimated.insert("unknown", growth.estimated_unknown);
        let counted = growth.counted.as_ref().map(by_kind);
        Self { pid: growth.pid, comm: &growth.comm, new: growth.is_new, estimated, counted }
    }
}

#[derive(Serialize)]
struct Woken<'a> {
    pid: u32,
    comm: &'a str,
}

type Counts = BTreeMap<&'static str, u64>;

#[derive(Serialize)]
struct ShortWaits {
    shorter_than: u64,
    count: u64,
    nanoseconds: u64,
}

#[derive(Serialize)]
struct Books {
    ticks: u64,
    idle: u64,
    not_selected: u64,
    left_out: ShortWaits,
    expected: u64,
    emitted: u64,
    balances: bool,
    lost: Counts,
    truncated: Counts,
    frames: u64,
    unresolved: Counts,
}

impl From<&Accounting> for Books {
    fn from(books: &Accounting) -> Self {
        let LeftOut { shorter_than, count, nanoseconds } = books.left_out;
        Self {
            ticks: books.ticks,
            idle: books.idle,
            not_selected: books.not_selected,
            left_out: ShortWaits { shorter_than, count, nanoseconds },
            expected: books.expected,
            emitted: books.emitted,
            balances: books.balances(),
            lost: LostCause::ALL.map(LostCause::name).into_iter().zip(books.lost).collect(),
            truncated: TruncatedCause::ALL
                .map(TruncatedCause::name)
                .into_iter()
                .zip(books.truncated)
                .collect(),
            frames: books.frames,
            unresolved: UnresolvedReason::ALL
                .map(UnresolvedReason::name)
                .into_iter()
                .zip(books.unresolved)
                .collect(),
        }
    }
}
