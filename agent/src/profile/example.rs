//! A small hand-made profile whose true shares are known, for the tests of reports and exporters.

use std::time::{Duration, UNIX_EPOCH};

use super::accounting::{Accounting, LostCause, TruncatedCause, UnresolvedReason};
use super::model::{
    FrameKind, Function, Labels, Line, Location, Module, Profile, ProfileKind, Sample, Thread, ValueType,
};

/// Nanoseconds that one sample stands for.
pub(crate) const PERIOD: i64 = 10_000_000;

const MAIN: usize = 0;
const WALK: usize = 1;
const HASH: usize = 2;
const READ: usize = 3;
const NAMELESS: usize = 4;
const UNKNOWN: usize = 5;

/// Ten samples, two processes. In samples (self / total):
///
/// | function | self | total | why |
/// |---|---|---|---|
/// | `app::walk` | 3 | 7 | leaf of three stacks that hold it twice, caller in four |
/// | `app::hash` | 4 | 4 | inlined into `app::walk` |
/// | `vfs_read` | 1 | 1 | kernel, on top of `main` |
/// | `libc.so.6+0x1f00` | 1 | 1 | no name |
/// | `[unknown]` | 1 | 1 | marker, truncated, another process |
/// | `main` | 0 | 9 | the root of all but the marker's |
pub(crate) fn profile() -> Profile {
    let mut accounting =
        Accounting { ticks: 40, idle: 28, expected: 12, emitted: 10, frames: 23, ..Accounting::default() };
    accounting.lost[LostCause::KernelSkipped as usize] = 2;
    accounting.truncated[TruncatedCause::Depth as usize] = 1;
    accounting.unresolved[UnresolvedReason::Stripped as usize] = 1;
    accounting.unresolved[UnresolvedReason::UnknownProcess as usize] = 1;
    Profile {
        kind: ProfileKind::Cpu,
        host: "node-1".into(),
        started: UNIX_EPOCH + Duration::from_millis(1_709_210_096_789),
        duration: Duration::from_millis(200),
        sample_types: vec![
            ValueType { name: "samples", unit: "count" },
            ValueType { name: "cpu", unit: "nanoseconds" },
        ],
        period_type: ValueType { name: "cpu", unit: "nanoseconds" },
        period: PERIOD,
        modules: modules(),
        functions: functions(),
        locations: locations(),
        samples: samples(),
        accounting,
        memory_growth: Vec::new(),
    }
}

/// [`profile`] without a single sample.
pub(crate) fn empty() -> Profile {
    Profile {
        modules: Vec::new(),
        functions: Vec::new(),
        locations: Vec::new(),
        samples: Vec::new(),
        accounting: Accounting::default(),
        ..profile()
    }
}

fn modules() -> Vec<Module> {
    vec![
        Module {
            path: "/srv/app".into(),
            build_id: Some("00ff".into()),
            start: 0x1000,
            limit: 0x9000,
            file_offset: 0x1000,
        },
        Module { path: "[kernel]".into(), build_id: None, start: 0, limit: 0, file_offset: 0 },
        Module {
            path: "/lib/libc.so.6".into(),
            build_id: None,
            start: 0x1000,
            limit: 0x20000,
            file_offset: 0,
        },
    ]
}

fn functions() -> Vec<Function> {
    let function = |name: &str, system_name: &str, file: Option<&str>| Function {
        name: name.into(),
        system_name: system_name.into(),
        file: file.map(Into::into),
    };
    vec![
        function("main", "main", Some("src/main.rs")),
        function("app::walk", "_ZN3app4walkE", Some("src/walk.rs")),
        function("app::hash", "_ZN3app4hashE", Some("src/hash.rs")),
        function("vfs_read", "vfs_read", None),
        function("libc.so.6+0x1f00", "", None),
        function("[unknown]", "", None),
    ]
}

fn locations() -> Vec<Location> {
    let location = |module, address, kind, lines: &[(usize, u32)]| Location {
        module,
        address,
        kind,
        lines: lines.iter().map(|&(function, line)| Line { function, line }).collect(),
    };
    vec![
        location(Some(0), 0x1100, FrameKind::User, &[(MAIN, 7)]),
        location(Some(0), 0x1200, FrameKind::User, &[(WALK, 20)]),
        location(Some(0), 0x1300, FrameKind::User, &[(HASH, 3), (WALK, 25)]),
        location(Some(1), 0xffff_ffff_8100_0000, FrameKind::Kernel, &[(READ, 0)]),
        location(Some(2), 0x1f00, FrameKind::User, &[(NAMELESS, 0)]),
        location(None, 0, FrameKind::Marker, &[(UNKNOWN, 0)]),
    ]
}

fn samples() -> Vec<Sample> {
    let sample = |locations: &[usize], count: i64, labels: Labels| Sample {
        locations: locations.to_vec(),
        values: vec![count, count * PERIOD],
        labels,
    };
    let app =
        |truncated| Labels { pid: 42, comm: "app".into(), thread: None, truncated, ..Labels::default() };
    let worker = Labels {
        pid: 42,
        comm: "app".into(),
        thread: Some(Thread { id: 43, name: "worker 1".into() }),
        ..Labels::default()
    };
    let other = Labels {
        pid: 7,
        comm: "sh; evil\n".into(),
        thread: None,
        truncated: Some("depth"),
        ..Labels::default()
    };
    vec![
        sample(&[1, 1, 0], 3, app(None)),
        sample(&[2, 0], 3, app(None)),
        sample(&[2, 1, 0], 1, worker),
        sample(&[3, 0], 1, app(None)),
        sample(&[4, 0], 1, app(None)),
        sample(&[5], 1, other),
    ]
}
