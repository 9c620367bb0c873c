//! The reference reader, `go tool pprof`, reads what we write and sees the numbers that we meant.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use agent::export::pprof;
use agent::profile::accounting::{Accounting, LostCause};
use agent::profile::model::{
    FrameKind, Function, Labels, Line, Location, Module, Profile, ProfileKind, Sample, Thread, ValueType,
};

const CPU: ValueType = ValueType { name: "cpu", unit: "nanoseconds" };

/// A program with an inlined function, a kernel frame, an unnamed frame and a marker: 8 samples of 10 ms.
fn profile() -> Profile {
    let mut accounting =
        Accounting { ticks: 10, expected: 10, emitted: 8, frames: 17, ..Accounting::default() };
    accounting.lost[LostCause::RingFull as usize] = 2;
    Profile {
        kind: ProfileKind::Cpu,
        host: "node-1".into(),
        started: UNIX_EPOCH + Duration::from_secs(1_709_210_096),
        duration: Duration::from_secs(10),
        sample_types: vec![ValueType { name: "samples", unit: "count" }, CPU],
        period_type: CPU,
        period: 10_000_000,
        modules: vec![
            module("/nonexistent/app", Some("0123456789abcdef"), 0x1000, 0x9000),
            module("[kernel]", None, 0, 0),
            module("/nonexistent/libplain.so", None, 0x1000, 0x2000),
        ],
        functions: ["main", "hash", "vfs_read", "libplain.so+0x1f00", "[unknown]"]
            .map(|name| Function { name: name.into(), system_name: name.into(), file: None })
            .to_vec(),
        locations: vec![
            location(Some(0), 0x1100, FrameKind::User, &[0]),
            location(Some(0), 0x1200, FrameKind::User, &[1, 0]),
            location(Some(1), 0xffff_ffff_8100_0000, FrameKind::Kernel, &[2]),
            location(Some(2), 0x1f00, FrameKind::User, &[3]),
            location(None, 0, FrameKind::Marker, &[4]),
        ],
        samples: vec![
            sample(&[1, 0], 4, None, None),
            sample(&[2, 0], 2, Some("worker"), None),
            sample(&[3, 0], 1, None, Some("unwind")),
            sample(&[4], 1, None, Some("depth")),
        ],
        accounting,
        memory_growth: Vec::new(),
    }
}

fn module(path: &str, build_id: Option<&str>, start: u64, limit: u64) -> Module {
    Module { path: path.into(), build_id: build_id.map(Into::into), start, limit, file_offset: start }
}

fn location(module: Option<usize>, address: u64, kind: FrameKind, functions: &[usize]) -> Location {
    let lines = functions.iter().map(|&function| Line { function, line: 0 }).collect();
    Location { module, address, kind, lines }
}

fn sample(locations: &[usize], count: i64, thread: Option<&str>, truncated: Option<&'static str>) -> Sample {
    let thread = thread.map(|name| Thread { id: 43, name: name.into() });
    Sample {
        locations: locations.to_vec(),
        values: vec![count, count * 10_000_000],
        labels: Labels { pid: 42, comm: "app".into(), thread, truncated, ..Labels::default() },
    }
}

fn go_is_available() -> bool {
    let version =
        Command::new("go").args(["tool", "pprof", "-h"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    harness::require("`go tool pprof`", version.is_ok_and(|status| status.success()))
}

/// What `go tool pprof <arguments> <file>` prints.
fn pprof_prints(directory: &Path, profile: &Profile, arguments: &[&str]) -> String {
    let file = directory.join("cpu.pb.gz");
    std::fs::write(&file, pprof::encode(profile)).unwrap();
    let output = Command::new("go")
        .args(["tool", "pprof"])
        .args(arguments)
        .arg(&file)
        .env("HOME", directory)
        .env("PPROF_TMPDIR", directory)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One line's words, so that column widths do not matter.
fn has_line(output: &str, words: &[&str]) -> bool {
    output.lines().any(|line| line.split_whitespace().eq(words.iter().copied()))
}

/// `-top` ranks by CPU time (the default sample type) and gives the true self and total time of each
/// function.
#[test]
fn top_shows_the_true_times() {
    if !go_is_available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = pprof_prints(directory.path(), &profile(), &["-top"]);
    assert!(output.contains("Type: cpu"), "{output}");
    assert!(output.contains("Duration: 10s, Total samples = 80ms"), "{output}");
    for words in [
        ["40ms", "50.00%", "50.00%", "40ms", "50.00%", "hash", "(inline)"].as_slice(),
        &["20ms", "25.00%", "75.00%", "20ms", "25.00%", "vfs_read"],
        &["10ms", "12.50%", "87.50%", "10ms", "12.50%", "[unknown]"],
        &["10ms", "12.50%", "100%", "10ms", "12.50%", "libplain.so+0x1f00"],
        &["0", "0%", "100%", "70ms", "87.50%", "main"],
    ] {
        assert!(has_line(&output, words), "{words:?} not in\n{output}");
    }
}

/// `-raw` shows every table as it was meant: types, labels, locations, mappings, comments.
#[test]
fn raw_shows_every_table() {
    if !go_is_available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = pprof_prints(directory.path(), &profile(), &["-raw"]);
    for part in [
        "PeriodType: cpu nanoseconds",
        "Period: 10000000",
        "Time: 2024-02-29",
        "nodeprof: expected 10, emitted 8, lost 2 (ring_full 2)",
        "samples/count cpu/nanoseconds[dflt]",
        "comm:[app]",
        "thread:[worker]",
        "thread_id:[43]",
        "pid:[42]",
        "truncated:[unwind]",
        "0xffffffff81000000 M=2 vfs_read",
        "0x1000/0x9000/0x1000 /nonexistent/app 0123456789abcdef [FN][IN]",
    ] {
        assert!(output.contains(part), "{part:?} not in\n{output}");
    }
    let marker = output.lines().find(|line| line.contains("[unknown]")).unwrap();
    assert!(!marker.contains("M="), "a marker has no mapping: {marker}");
}

/// A tag that a user filters by selects what it should.
#[test]
fn tags_can_be_focused_on() {
    if !go_is_available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = pprof_prints(directory.path(), &profile(), &["-top", "-tagfocus=truncated=depth"]);
    assert!(output.contains("10ms, 12.50% of 80ms total"), "{output}");
    assert!(output.contains("[unknown]") && !output.contains("vfs_read"), "{output}");
}

/// A profile without samples is read without complaint.
#[test]
fn an_empty_profile_is_read() {
    if !go_is_available() {
        return;
    }
    let empty = Profile { samples: Vec::new(), ..profile() };
    let directory = tempfile::tempdir().unwrap();
    let output = pprof_prints(directory.path(), &empty, &["-raw"]);
    assert!(output.contains("PeriodType: cpu nanoseconds"), "{output}");
}
