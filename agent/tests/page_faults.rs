//! Memory that becomes resident: how much, where, of what kind and whose, against programs that know it of themselves and against the
//! kernel's own counts.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::process::{ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use harness::agent_run::AgentRun;
use harness::kernel;
use harness::profiled::{Profile, Sample};
use harness::running::Running;
use harness::workload::Workload;
use nix::sys::signal::Signal;

/// How many faults a sample stands for, with the default period: two events with periods of 61 and 67, half of whose firings are taken.
const MEAN: f64 = 2.0 * 61.0 * 67.0 / (61.0 + 67.0);

/// A workload that waits for its signal.
struct PageFaults {
    running: Running,
    said: BufReader<ChildStdout>,
    _program: Workload,
}

impl PageFaults {
    fn start(mode: &str) -> Self {
        let program = Workload::plain("gcc", "page_faults.c", "page_faults", &["-O2", "-g"]);
        let mut command = Command::new(program.program());
        let file = program.directory().join("file");
        let mut running = Running::start(command.arg(mode).arg(file).stdout(Stdio::piped()));
        let mut said = BufReader::new(running.child().stdout.take().expect("a pipe"));
        let mut line = String::new();
        said.read_line(&mut line).expect("a readable pipe");
        assert_eq!(line, "ready\n");
        Self { running, said, _program: program }
    }

    /// Lets it do what it is to do, and returns the numbers that it says then.
    fn act(&mut self) -> [u64; 2] {
        self.running.signal(Signal::SIGUSR1);
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a readable pipe");
        let numbers: Vec<u64> =
            line.split_whitespace().map(|number| number.parse().expect("a number")).collect();
        numbers.try_into().expect("two numbers")
    }

    fn pid(&self) -> u32 {
        self.running.pid()
    }
}

/// Samples page faults while the workload acts; of the workload only, unless `everybody`.
fn profile(workload: &mut PageFaults, everybody: bool, more: &[&str]) -> (Profile, [u64; 2]) {
    let pid = workload.pid().to_string();
    let chosen = ["--pid", &pid];
    // The window ends when the workload has done what it is to do.
    let arguments = ["--duration", "60s", "--profilers", "memory"];
    let chosen: &[&str] = if everybody { &[] } else { &chosen };
    let run = AgentRun::start(&[&arguments, chosen, more].concat());
    let numbers = workload.act();
    thread::sleep(Duration::from_millis(300));
    run.process().signal(Signal::SIGINT);
    (run.finish_with("pagefaults").profile, numbers)
}

/// Faults and bytes of samples that `is_it` accepts.
fn sum<'a>(profile: &'a Profile, is_it: impl Fn(&'a Sample) -> bool) -> (f64, f64) {
    let found = profile.samples.iter().filter(|sample| is_it(sample));
    found.fold((0.0, 0.0), |(faults, bytes), sample| {
        (faults + sample.values()[0] as f64, bytes + sample.values()[1] as f64)
    })
}

fn has(profile: &Profile, sample: &Sample, function: &str) -> bool {
    profile.stack(sample).any(|frame| frame.name == function)
}

/// The bytes that became resident in `function` and below.
fn resident_in(profile: &Profile, function: &str) -> f64 {
    sum(profile, |sample| has(profile, sample, function)).1
}

/// Asserts that `estimate` is within three standard errors of `truth`, made of `samples` samples.
fn assert_near(what: &str, estimate: f64, truth: f64, samples: f64) {
    let bound = 3.0 / samples.sqrt();
    let error = estimate / truth - 1.0;
    println!("{what}: {estimate:.0} of {truth:.0} ({:+.2} %, bound {:.2} %)", error * 100.0, bound * 100.0);
    assert!(error.abs() <= bound, "{what}: {estimate} of {truth}, {samples} samples");
}

/// A gigabyte in small pages: bytes and faults are right within three standard errors of more than 4,000 samples, whole stacks name the
/// function that touches and its callers, and the kernel's own count has grown as much.
#[test]
fn touched_memory_is_estimated() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut workload = PageFaults::start("small");
    let (profile, [bytes, _]) = profile(&mut workload, false, &[]);
    let samples = profile.accounting.emitted as f64;
    assert!(samples >= 4000.0, "{:?}", profile.accounting);
    let truth = bytes as f64;
    let is_touch = |sample| has(&profile, sample, "touch_page");
    let (faults, resident) = sum(&profile, is_touch);
    assert_near("resident bytes", resident, truth, samples);
    assert_near("faults", faults, truth / 4096.0, samples);
    for sample in profile.samples.iter().filter(|sample| is_touch(sample)) {
        let stack: Vec<_> = profile.stack(sample).map(|frame| frame.name).collect();
        assert_eq!(stack[..3], ["touch_page", "touch_all", "main"]);
        assert_eq!(sample.memory.as_deref(), Some("anon"));
        assert!(sample.truncated.is_none(), "{stack:?}");
    }
    let growth = profile.growth_of(workload.pid());
    let counted = growth.counted.as_ref().expect("it still runs");
    println!("{growth:?}");
    assert!((counted.anon as f64 / truth - 1.0).abs() < 0.01, "{growth:?}");
    assert_near("by the kernel's count", growth.estimated.anon as f64, counted.anon as f64, samples);
    assert!(!growth.new);
}

/// The same in huge pages, where a fault brings 512 times as much: with every fault sampled the bytes are exact but for what else the
/// program does; with one in four they are within three standard errors.
#[test]
fn huge_pages_weigh_what_they_are() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    for (period, mean) in [("1", 1.0), ("4", 3.75)] {
        let mut workload = PageFaults::start("huge");
        let (profile, [bytes, _]) = profile(&mut workload, false, &["--pagefault-period", period]);
        let truth = bytes as f64;
        let (faults, resident) = sum(&profile, |sample| has(&profile, sample, "touch_page"));
        let growth = profile.growth_of(workload.pid());
        println!("period {period}: {faults} faults, {resident} bytes of {truth}, {growth:?}");
        if faults > truth / 4096.0 / 2.0 {
            harness::skip("the kernel gave no huge pages: its memory is in pieces");
            return;
        }
        if period == "1" {
            assert!((resident / truth - 1.0).abs() < 0.001, "{resident} of {truth}");
        }
        assert_near("resident bytes", resident, truth, faults / mean);
    }
}

/// Memory that was freed and is used again without having left the process counts once.
#[test]
fn reused_memory_counts_once() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut workload = PageFaults::start("again");
    let (profile, [bytes, same]) = profile(&mut workload, false, &[]);
    assert_eq!(same, 1, "malloc gives the same memory again");
    let first = resident_in(&profile, "touch_all");
    assert_near("first use", first, bytes as f64, bytes as f64 / 4096.0 / MEAN);
    assert!(resident_in(&profile, "touch_again") < 1.0);
}

/// Two functions whose faults alternate strictly get half each, to three standard deviations.
#[test]
fn alternating_faults_are_shared_evenly() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut workload = PageFaults::start("by-turns");
    let (profile, [bytes, _]) = profile(&mut workload, false, &[]);
    let (left, right) = (resident_in(&profile, "touch_left"), resident_in(&profile, "touch_right"));
    let samples = profile.accounting.emitted as f64;
    let share = left / (left + right);
    println!("share {share}, {samples} samples");
    assert!((share - 0.5).abs() <= 3.0 * (0.25 / samples).sqrt(), "{share}, {samples} samples");
    assert_near("both", left + right, 2.0 * bytes as f64, samples);
}

/// A file that is read is a file's memory, with the pages that the kernel maps around the one that faults; the kernel's count has grown
/// as much.
#[test]
fn files_are_told_from_own_memory() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut workload = PageFaults::start("file");
    let (profile, [bytes, _]) = profile(&mut workload, false, &["--pagefault-period", "1"]);
    let is_read = |sample| has(&profile, sample, "read_file");
    let (faults, resident) = sum(&profile, is_read);
    assert_near("resident bytes", resident, bytes as f64, faults);
    let kinds: HashSet<_> = profile
        .samples
        .iter()
        .filter(|sample| is_read(sample))
        .map(|sample| sample.memory.as_deref())
        .collect();
    assert_eq!(kinds, HashSet::from([Some("file")]));
    let growth = profile.growth_of(workload.pid());
    let counted = growth.counted.as_ref().expect("it still runs").file;
    println!("{growth:?}");
    assert_near("by the kernel's count", growth.estimated.file as f64, counted as f64, faults);
}

/// Shared memory is told from both.
#[test]
fn shared_memory_is_told_apart() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut workload = PageFaults::start("shared");
    let (profile, [bytes, _]) = profile(&mut workload, false, &[]);
    let (_, resident) = sum(&profile, |sample| {
        has(&profile, sample, "touch_all") && sample.memory.as_deref() == Some("shmem")
    });
    assert_near("resident bytes", resident, bytes as f64, bytes as f64 / 4096.0 / MEAN);
    let growth = profile.growth_of(workload.pid());
    println!("{growth:?}");
    let counted = growth.counted.as_ref().expect("it still runs").shmem;
    assert!((counted as f64 / bytes as f64 - 1.0).abs() < 0.01, "{growth:?}");
}

/// A child that writes to what it shares with its parent: the faults are the child's, and make nothing resident that was not; what it
/// touches first is its own.
#[test]
fn copies_on_write_are_the_childs() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut workload = PageFaults::start("fork");
    let (profile, [child, bytes]) = profile(&mut workload, true, &[]);
    let child = u32::try_from(child).expect("a process id");
    let pages = bytes as f64 / 4096.0;
    let is_copy = |sample| has(&profile, sample, "write_copies");
    let (faults, resident) = sum(&profile, is_copy);
    assert_near("faults", faults, pages, pages / MEAN);
    assert!(resident < 1.0, "{resident}");
    for sample in profile.samples.iter().filter(|sample| is_copy(sample)) {
        assert_eq!((sample.pid, sample.memory.as_deref()), (child, Some("unchanged")));
    }
    let (_, fresh) = sum(&profile, |sample| sample.pid == child && has(&profile, sample, "touch_all"));
    assert_near("fresh memory", fresh, bytes as f64, pages / MEAN);
    let growth = profile.growth_of(child);
    println!("{growth:?}");
    assert!(growth.new);
    // What it has from its parent, and what it touched.
    let counted = growth.counted.as_ref().expect("it still runs").anon as f64;
    assert!((counted / (2.0 * bytes as f64) - 1.0).abs() < 0.01, "{growth:?}");
}

/// Processes that live for a few milliseconds: each is there with its name, its functions and its memory.
#[test]
fn short_lives_are_named() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut workload = PageFaults::start("brief");
    let (profile, [processes, bytes]) = profile(&mut workload, true, &[]);
    let is_short = |sample| has(&profile, sample, "short_touch");
    let (_, resident) = sum(&profile, is_short);
    let truth = (processes * bytes) as f64;
    assert_near("resident bytes", resident, truth, truth / 4096.0 / MEAN);
    let found: Vec<_> = profile.samples.iter().filter(|sample| is_short(sample)).collect();
    let pids: HashSet<u32> = found.iter().map(|sample| sample.pid).collect();
    assert_eq!(pids.len() as u64, processes);
    assert!(found.iter().all(|sample| sample.comm == "page_faults" || sample.comm == "exe"));
    assert!(found.iter().all(|sample| sample.memory.as_deref() == Some("anon")));
}
