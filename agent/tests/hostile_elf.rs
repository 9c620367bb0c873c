//! Processes whose files are corrupt, hostile or no longer where they were. Nothing of it stops the agent, gives a wrong
//! name, or takes a name from anybody else.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::agent_run::AgentRun;
use harness::kernel;
use harness::profiled::{Frame, Profile, Profiled};
use harness::running::Running;
use harness::workload::Workload;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

/// Programs and a library from which the processes here are made.
struct Parts {
    spin: Workload,
    other: Workload,
    runner: Workload,
    library: Workload,
}

impl Parts {
    fn compile() -> Self {
        Self {
            spin: Workload::c("spin.c", "spin", &[]),
            other: Workload::c("short_life.c", "other", &[]),
            runner: Workload::c("run_mapped.c", "run_mapped", &[]),
            library: Workload::c("code.c", "code.so", &["-shared", "-fPIC"]),
        }
    }

    /// A copy of the library in `directory`, corrupted by `corrupt`; a process that runs its code.
    fn run_library(&self, directory: &Path, name: &str, corrupt: impl FnOnce(&mut [u8])) -> Running {
        let mut bytes = fs::read(self.library.program()).expect("the library is there");
        let offset = code_offset(&bytes);
        corrupt(&mut bytes);
        let path = directory.join(name);
        fs::write(&path, bytes).expect("written");
        Running::start_until_ready(self.runner.command().arg(path).arg(offset.to_string()))
    }

    /// A copy of the burner called `name` in `directory`; a process that runs it.
    fn run_burner(&self, directory: &Path, name: impl AsRef<OsStr>) -> (Running, PathBuf) {
        let path = directory.join(name.as_ref());
        fs::copy(self.spin.program(), &path).expect("copied");
        (Running::start_until_ready(&mut Command::new(&path)), path)
    }
}

/// Where in the library's file its code begins.
fn code_offset(library: &[u8]) -> u64 {
    let file = object::File::parse(library).expect("gcc makes ELF files");
    let address =
        |symbol: object::Symbol<'_, '_>| (symbol.name() == Ok("code_in_library")).then(|| symbol.address());
    let address = file.dynamic_symbols().find_map(address).expect("the library's one function");
    let text = file.section_by_name(".text").expect("its section");
    address - text.address() + text.file_range().expect("bytes in the file").0
}

fn garble_header(bytes: &mut [u8]) {
    let mut state = 0x9e37_79b9_u32;
    for byte in &mut bytes[..64] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = state.to_be_bytes()[0];
    }
}

/// An ELF header whose tables are as many as can be said, and lie behind the end of the address space.
fn lie_in_header(bytes: &mut [u8]) {
    const E_PHOFF: usize = 32;
    const E_PHNUM: usize = 56;
    bytes[E_PHOFF..E_PHOFF + 16].fill(0xf8);
    bytes[E_PHNUM..E_PHNUM + 8].fill(0xff);
}

/// Symbols whose names and sizes make no sense: every byte of the tables is 0xff.
fn garble_symbols(bytes: &mut [u8]) {
    for name in [".symtab", ".dynsym"] {
        let file = object::File::parse(&*bytes).expect("still an ELF file");
        let (start, size) = file.section_by_name(name).and_then(|table| table.file_range()).expect("a table");
        bytes[start as usize..(start + size) as usize].fill(0xff);
    }
}

/// A name that would clear the screen, and would break lines of folded stacks.
const HOSTILE_NAME: &[u8; 15] = b"\x1b[2J;evil\n 7\r 9";

fn give_hostile_name(bytes: &mut [u8]) {
    let name = b"code_in_library";
    while let Some(at) = bytes.windows(name.len()).position(|window| window == name) {
        bytes[at..at + name.len()].copy_from_slice(HOSTILE_NAME);
    }
}

/// What a process's function is to be called.
#[derive(Debug)]
enum Expected {
    /// This.
    Name(&'static str),
    /// `module+0xoffset`, and nothing else.
    Placeholder(&'static str),
    /// Either, as long as it is not the name of something else.
    Either(&'static str, &'static str),
    /// Any name, for it is made harmless where it is shown.
    Disarmed,
}

/// Every kind of file that is not what it should be, each with a process that runs its code.
fn awkward_processes(parts: &Parts, directory: &Path) -> Vec<(Running, Expected)> {
    fs::create_dir(directory).expect("a directory");
    let placeholder = Expected::Placeholder;
    let library = |name, corrupt: fn(&mut [u8])| parts.run_library(directory, name, corrupt);

    let (deleted, path) = parts.run_burner(directory, "deleted");
    fs::remove_file(path).expect("removed");
    let (replaced, path) = parts.run_burner(directory, "replaced");
    fs::rename(parts.other.copy("new"), path).expect("replaced");
    let (named, _) = parts.run_burner(directory, "e\x1b[2J;v\nil 7");
    vec![
        (library("sound.so", |_| {}), Expected::Name("code_in_library")),
        (library("garbled.so", garble_header), placeholder("garbled.so+0x")),
        (library("lying.so", lie_in_header), placeholder("lying.so+0x")),
        (library("symbols.so", garble_symbols), placeholder("symbols.so+0x")),
        (library("names.so", give_hostile_name), Expected::Disarmed),
        (deleted, Expected::Name("spin_here")),
        (replaced, Expected::Name("spin_here")),
        (named, Expected::Name("spin_here")),
    ]
}

/// A process whose file lost its end, and with it its section headers, after its code was mapped.
fn truncated_process(parts: &Parts, directory: &Path) -> Running {
    let running = parts.run_library(directory, "truncated.so", |_| {});
    let file = File::options().write(true).open(directory.join("truncated.so")).expect("it is there");
    // The page with the code stays.
    file.set_len(0x2000).expect("truncated");
    running
}

/// A process burns nearly all of its time in one function of its own, which must be called as expected; the rest is the
/// beginning. Nothing is called after a file that took the place of the process's own.
#[track_caller]
fn assert_called(profile: &Profile, process: &Running, expected: &Expected) {
    let is_right = |frame: Frame<'_>| match expected {
        Expected::Name(right) => frame.name == *right,
        Expected::Placeholder(start) => frame.name.starts_with(start) && !frame.named,
        Expected::Either(right, start) => {
            frame.name == *right || frame.name.starts_with(start) && !frame.named
        }
        Expected::Disarmed => frame.named && frame.module.ends_with("/names.so"),
    };
    let pid = process.pid();
    let (samples, _) = profile.total_of(pid);
    assert!(samples > 20, "{expected:?}: {samples} samples");
    let right = profile.count_with(pid, is_right);
    let names: BTreeSet<_> =
        profile.of(pid).flat_map(|sample| profile.stack(sample)).map(|frame| frame.name).collect();
    assert!(right * 100 >= samples * 95, "{expected:?}: {right} of {samples} samples, among {names:?}");
    assert!(!names.contains("burn_briefly"), "{expected:?}: {names:?}");
    if let Expected::Placeholder(module) = expected {
        let module = module.trim_end_matches("+0x");
        let named = profile.count_with(pid, |frame| frame.named && frame.module.ends_with(module));
        assert_eq!(named, 0, "{expected:?}: {names:?}");
    }
}

/// What people look at has no control characters, and each line of folded stacks is one stack with one number.
fn assert_harmless(profiled: &Profiled) {
    for file in ["cpu.folded", "cpu.txt", "cpu.svg"] {
        let text = profiled.text(file);
        let control =
            text.lines().find(|line| line.chars().any(|letter| letter.is_control() && letter != '\t'));
        assert_eq!(control, None, "{file}");
        assert!(
            text.contains("[2J;evil") || text.contains("[2J:evil"),
            "{file}: the name is shown all the same"
        );
    }
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<u64>().ok());
    let folded = profiled.text("cpu.folded");
    let total: u64 = folded.lines().map(|line| value(line).unwrap_or_else(|| panic!("{line:?}"))).sum();
    let samples = &profiled.profile.samples;
    assert_eq!(total, samples.iter().map(harness::profiled::Sample::nanoseconds).sum::<u64>());
}

/// Corrupt files give `module+0xoffset` and are counted, deleted and replaced ones the names that they had, hostile names
/// are made harmless, and a sound process keeps its names: whether the process ran before the agent (and is known from
/// /proc) or began later (and is known from the side-band).
#[test]
fn awkward_files_stop_nothing() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let parts = Parts::compile();
    let directory = parts.spin.directory();
    let mut processes = awkward_processes(&parts, &directory.join("before"));
    let truncated = truncated_process(&parts, &directory.join("before"));
    processes.push((truncated, Expected::Placeholder("truncated.so+0x")));
    let run = AgentRun::start(&["--duration", "6s", "--frequency", "499"]);
    processes.extend(awkward_processes(&parts, &directory.join("during")));
    // Whether the agent saw the file while it was whole is chance.
    let truncated = truncated_process(&parts, &directory.join("during"));
    processes.push((truncated, Expected::Either("code_in_library", "truncated.so+0x")));
    let profiled = run.finish();

    let profile = &profiled.profile;
    for (process, expected) in &processes {
        assert_called(profile, process, expected);
    }
    assert_harmless(&profiled);
    let nameless = |kind: &str| {
        let frames = |sample| {
            profile.stack(sample).filter(|frame| !frame.named && frame.module.ends_with(kind)).count()
        };
        profile.samples.iter().map(|sample| sample.count() * frames(sample) as u64).sum::<u64>()
    };
    let malformed = nameless("/garbled.so") + nameless("/lying.so");
    assert!(
        profile.accounting.unresolved("malformed") >= malformed && malformed > 0,
        "{:?}",
        profile.accounting
    );
    // The file that was truncated behind the agent's back cannot be shown to be the one that was mapped, or has lost the
    // names that its index leads to. All other files are there to be read.
    let lost = profile.accounting.unresolved("gone") + profile.accounting.unresolved("unreadable");
    assert!(lost <= nameless("/during/truncated.so"), "{:?}", profile.accounting);
}
