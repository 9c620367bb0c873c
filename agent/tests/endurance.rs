//! What comes and goes for days leaves nothing behind.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use harness::kernel;
use harness::running::Running;
use harness::session::{InProcess, descriptors, threads};
use harness::workload::Workload;

/// Descriptors of modules' files that may be open at once: 16 for names and lines, 6 for unwinding, and
/// those of debug files.
const MODULE_FILES: usize = 48;
/// Room for some 6,000 modules, of which a quarter is for those that nobody maps.
const SMALL_BUDGET: usize = 3 << 20;

/// What comes with glibc.
const LIBRARIES: &[&str] = &["-fno-builtin", "-Wl,--no-as-needed", "-lm", "-lresolv", "-lanl"];

/// Lets `churn` start and end `count` processes while `agent` collects; their numbers.
fn churn(
    agent: &mut InProcess,
    workloads: &[Workload; 2],
    count: u32,
    copies: Option<&Path>,
) -> HashSet<u32> {
    let [churn, brief] = workloads;
    let list = churn.directory().join("pids");
    let mut command = churn.command();
    command.arg(count.to_string()).arg(brief.program()).args(copies);
    let mut running = Running::start(command.stdout(Stdio::from(File::create(&list).expect("a file"))));
    let status = loop {
        agent.collect(Duration::from_millis(200));
        if let Some(status) = running.child().try_wait().expect("a child") {
            break status;
        }
    };
    assert!(status.success(), "{status}");
    let list = fs::read_to_string(list).expect("the list");
    let pids: HashSet<u32> = list.lines().map(|pid| pid.parse().expect("a number")).collect();
    assert!(pids.len() as u32 >= count, "{} of {count} processes", pids.len());
    pids
}

fn workloads() -> [Workload; 2] {
    // As distributions build: rows are needed, and so the arena is.
    let churn = Workload::plain("gcc", "churn.c", "churn", &["-pthread"]);
    [churn, Workload::plain("gcc", "brief.c", "brief", LIBRARIES)]
}

/// How many samples a window has of `pids`.
fn samples_of(pids: &HashSet<u32>, agent: &mut InProcess) -> u64 {
    let window = agent.end_windows().cpu;
    let theirs = window.counted().filter(|line| pids.contains(&line.task.pid));
    theirs.map(|line| line.count.total()).sum()
}

/// 5,000 processes that come and go, by fork, by exec and with threads, many of them sampled: nothing of them stays in any
/// table, not a byte of the arena, no descriptor and no thread; of the files that they shared, one entry each.
#[test]
fn nothing_is_left_of_5000_processes() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let workloads = workloads();
    let (own_files, _) = descriptors();
    let mut agent = InProcess::start(&["--frequency", "499"], 4 << 20);
    let first = churn(&mut agent, &workloads, 120, None);
    agent.end_windows();
    agent.settle(&first);
    let ((_, others), workers) = (descriptors(), threads());
    let own_modules = |agent: &InProcess| {
        workloads.iter().map(|own| agent.modules.count_below(own.directory())).collect::<Vec<_>>()
    };
    assert_eq!(own_modules(&agent), [1, 1]);
    let before = agent.tables();

    let pids = churn(&mut agent, &workloads, 5000, None);
    let samples = samples_of(&pids, &mut agent);
    agent.settle(&pids);
    println!("{samples} samples\nbefore {before:#?}\nafter {:#?}", agent.tables());
    assert!(samples > 500, "{samples} samples of them");
    assert_eq!(own_modules(&agent), [1, 1], "files are known once, however many processes map them");
    let (files, now) = descriptors();
    assert_eq!((now, threads()), (others, workers), "descriptors and threads");
    assert!(files.len() <= own_files.len() + MODULE_FILES, "{files:#?}");
    assert_eq!(agent.modules.refused(), 0);
}

/// 5,000 processes that each execute a file of their own, deleted afterwards, as containers do that come and go: modules that
/// nobody maps stay within their part of the table, those beyond are retired with all that was derived from them, and no deleted file
/// is kept open.
#[test]
fn nothing_is_left_of_5000_files() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let workloads = workloads();
    let mut agent = InProcess::start(&["--frequency", "499"], SMALL_BUDGET);
    let copies = workloads[0].directory().join("copies");
    fs::create_dir(&copies).expect("a directory");
    let machine = agent.tables()["modules"].bytes;

    let pids = churn(&mut agent, &workloads, 5000, Some(&copies));
    let samples = samples_of(&pids, &mut agent);
    agent.settle(&pids);
    // Twice what is between two looks.
    agent.collect(Duration::from_secs(21));
    println!("{samples} samples, {} retired\n{:#?}", agent.modules.retired(), agent.tables());
    assert!(samples > 500, "{samples} samples of them");
    assert_eq!(agent.modules.refused(), 0);
    let kept = agent.modules.count_below(&copies);
    assert!(agent.modules.retired() + kept as u64 >= 5000, "each was known: {kept} are");
    assert!(agent.modules.retired() > 2000, "{} retired", agent.modules.retired());
    let bytes = agent.tables()["modules"].bytes;
    assert!(bytes <= machine * 2 + SMALL_BUDGET / 4, "{bytes} bytes, {machine} of them the machine's own");
    let (files, _) = descriptors();
    assert!(!files.iter().any(|file| file.contains("/copies/")), "deleted files are open: {files:#?}");
}
