//! What a run leaves: files with the right names and owners, or one profile and nothing else on standard output.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use harness::agent_run::{AgentRun, agent, output_within};
use harness::kernel;
use harness::profiled::{Profile, decode_pprof};
use harness::running::Running;
use harness::workload::Workload;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// No run here takes longer.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs `agent --once` for half a second in `directory`; it must succeed.
fn once_in(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = agent();
    command.args(["--once", "--duration", "500ms", "--profilers", "cpu"]).args(arguments);
    command.current_dir(directory).envs(environment.iter().copied());
    let output = output_within(&mut command, LIMIT);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Without `--profilers` all of them run: each writes its profiles, and has its report, in one run.
#[test]
fn all_profilers_run_by_default() {
    let Some(_leave) = kernel::shared(&[]) else { return };
    let directory = TempDir::new().expect("a directory");
    let mut command = agent();
    command.args(["--once", "--duration", "1s", "--output", "made", "--format", "pprof"]);
    let output = output_within(command.current_dir(directory.path()), LIMIT);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made = names(&directory.path().join("made"));
    let expected = ["cpu", "mutex-holders", "mutex", "offcpu-wakers", "offcpu", "pagefaults"];
    assert_eq!(made, expected.map(|name| format!("{name}.pb.gz")));
    let report = String::from_utf8_lossy(&output.stdout);
    assert_eq!(report.matches("Samples: expected").count(), expected.len(), "{report}");
}

/// What there is in a directory, sorted.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut entries: Vec<_> = entries.collect();
    entries.sort();
    entries
}

fn names(directory: &Path) -> Vec<String> {
    let name = |path: PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
    entries(directory).into_iter().map(name).collect()
}

/// Without `--output`, a directory that is named after the time holds pprof and a flame graph; the report goes to
/// standard output and says where they are.
#[test]
fn files_go_to_a_directory_named_after_the_time() {
    let Some(_leave) = kernel::shared(&[]) else { return };
    let directory = TempDir::new().expect("a directory");
    let output = once_in(directory.path(), &[], &[]);
    let made = names(directory.path());
    let [name] = made.as_slice() else { panic!("{made:?}") };
    let stamp = name.strip_prefix("nodeprof-").expect("the name's beginning");
    let shape: String =
        stamp.chars().map(|letter| if letter.is_ascii_digit() { '9' } else { letter }).collect();
    assert_eq!(shape, "99999999T999999Z");
    assert_eq!(names(&directory.path().join(name)), ["cpu.pb.gz", "cpu.svg"]);
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(report.contains("Functions by self time") && report.contains("Samples: expected"), "{report}");
    assert!(report.contains(&format!("wrote nodeprof-{stamp}/cpu.pb.gz")), "{report}");
}

/// Under sudo, the directory and the files belong to the user who called it; elsewhere to root.
#[test]
fn files_belong_to_who_called_sudo() {
    let Some(_leave) = kernel::shared(&[]) else { return };
    for (environment, owner) in
        [(&[("SUDO_UID", "4711"), ("SUDO_GID", "4712")][..], (4711, 4712)), (&[][..], (0, 0))]
    {
        let directory = TempDir::new().expect("a directory");
        once_in(directory.path(), &["--format", "pprof,svg,folded,text,json"], environment);
        let made = entries(directory.path()).remove(0);
        let files = entries(&made);
        assert_eq!(files.len(), 5, "{files:?}");
        for path in files.iter().chain([&made]) {
            let metadata = path.metadata().expect("it is there");
            assert_eq!((metadata.uid(), metadata.gid()), owner, "{}", path.display());
        }
    }
}

/// With `--output -`, standard output holds the profile in the one format that was asked for, and nothing else; no file
/// is made.
#[test]
fn standard_output_takes_the_profile_alone() {
    let Some(_leave) = kernel::shared(&["gcc"]) else { return };
    let spin = Workload::c("spin.c", "spin", &[]).start();
    let directory = TempDir::new().expect("a directory");
    let written = |arguments: &[&str]| {
        let output = once_in(directory.path(), &[&["--output", "-"], arguments].concat(), &[]).stdout;
        assert_eq!(names(directory.path()), [""; 0]);
        output
    };
    for arguments in [&[][..], &["--format", "pprof"]] {
        let pprof = decode_pprof(&written(arguments));
        assert!(pprof.string_table.iter().any(|text| text == "spin_here"));
    }
    let json = Profile::parse(&written(&["--format", "json"]));
    assert!(json.count_with(spin.pid(), |frame| frame.name == "spin_here") > 0);
    let svg = String::from_utf8(written(&["--format", "svg"])).expect("UTF-8");
    assert!(svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>") && svg.contains("spin_here"));
    let folded = String::from_utf8(written(&["--format", "folded"])).expect("UTF-8");
    assert!(folded.contains("spin_here"));
    for line in folded.lines() {
        let value = line.rsplit_once(' ').map(|(_, value)| value.parse::<u64>());
        assert!(matches!(value, Some(Ok(_))), "{line:?}");
    }
    let text = String::from_utf8(written(&["--format", "text"])).expect("UTF-8");
    assert!(text.contains("Samples: expected") && text.contains("spin_here"), "{text}");
}

/// Ctrl-C, or a polite request to end, ends the window early: everything is written all the same, and it is a success.
#[test]
fn ctrl_c_ends_the_window_early() {
    let Some(_leave) = kernel::shared(&[]) else { return };
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let directory = TempDir::new().expect("a directory");
        let mut command = agent();
        command.args([
            "--once",
            "--duration",
            "60s",
            "--profilers",
            "cpu",
            "--output",
            "made",
            "--format",
            "json,pprof",
        ]);
        command.current_dir(directory.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Running::start(&mut command);
        std::thread::sleep(Duration::from_secs(1));
        kill(Pid::from_raw(running.pid().cast_signed()), signal).expect("it still runs");
        assert!(running.wait_at_most(LIMIT).success(), "{signal}");
        let made = directory.path().join("made");
        let profile = Profile::parse(&fs::read(made.join("cpu.json")).expect("written"));
        assert!((0.2..30.0).contains(&profile.duration_seconds), "{}", profile.duration_seconds);
        profile.accounting.assert_balanced();
        decode_pprof(&fs::read(made.join("cpu.pb.gz")).expect("written"));
    }
}

/// There is one resolver, with the kernel's symbols, and one CPU profiler; each says so in one line. Standard error holds
/// nothing but the log when it is no terminal: no progress, no colours.
#[test]
fn one_resolver_and_one_profiler_say_so_once() {
    let Some(_leave) = kernel::shared(&[]) else { return };
    let directory = TempDir::new().expect("a directory");
    let output = once_in(directory.path(), &[], &[]);
    let log = String::from_utf8(output.stderr).expect("UTF-8");
    let lines_with = |text| log.lines().filter(|line| line.contains(text)).collect::<Vec<_>>();
    let [resolver] = lines_with("created shared symbol resolver for all profilers")[..] else {
        panic!("{log}")
    };
    let symbols = resolver.split_once("kernel_symbols=").expect("a count").1;
    let symbols = symbols.split(' ').next().and_then(|count| count.parse::<u64>().ok());
    assert!(symbols > Some(10_000), "{resolver}");
    let [profiler] = lines_with("registered profiler: cpu")[..] else { panic!("{log}") };
    assert!(profiler.ends_with("registered profiler: cpu"), "{profiler}");
    assert!(!log.contains(['\r', '\u{1b}']) && !log.contains("profiling ["), "{log:?}");
    assert!(log.lines().all(|line| line.contains(" INFO ")), "{log}");
    assert!(!output.stdout.contains(&0x1b), "a report without colours");
}

/// A busy machine's resolver is still one: the line stands once however many processes there are to name.
#[test]
fn the_resolver_is_shared_by_everything() {
    let Some(_leave) = kernel::shared(&["gcc"]) else { return };
    let workload = Workload::c("spin.c", "spin", &[]);
    let _burners = [workload.start(), workload.start(), workload.start()];
    let run = AgentRun::start(&["--duration", "1s"]).finish();
    let made = run.log.iter().filter(|line| line.contains("created shared symbol resolver"));
    assert_eq!(made.count(), 1);
}
