//! What the agent is asked in error is refused with a reason and an exit status, before anything is waited for.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use harness::agent_run::{agent, output_within};
use harness::kernel;
use tempfile::TempDir;

/// Runs `agent --once` with a window of a minute and `arguments`; it must end long before the window would, and leave
/// nothing behind.
fn once(arguments: &[&str]) -> Output {
    let directory = TempDir::new().expect("a directory");
    let mut command = agent();
    command.args(["--once", "--duration", "60s"]).args(arguments).current_dir(directory.path());
    let output = output_within(&mut command, Duration::from_secs(20));
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0);
    output
}

/// Asserts the exit status, that standard error has `reason`, and that nothing was written to standard output.
#[track_caller]
fn assert_refused(output: &Output, status: i32, reason: &str) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{message}");
    assert!(message.contains(reason), "{reason:?} is not in {message:?}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A window of no length and one of a nonsensical length are refused.
#[test]
fn bad_durations_are_refused() {
    for (duration, reason) in [("0", "between 1ms and 24h"), ("ten", "is not"), ("10y", "not a unit of time")]
    {
        let refused =
            output_within(agent().args(["--once", "--duration", duration]), Duration::from_secs(20));
        assert_refused(&refused, 2, reason);
    }
}

/// The number of a process that has ended.
fn pid_of_nobody() -> String {
    let mut child = Command::new("true").stdin(Stdio::null()).spawn().expect("true starts");
    child.wait().expect("true ends");
    child.id().to_string()
}

/// Values that make no sense are named, with the option they belong to and what would do.
#[test]
fn bad_values_are_refused() {
    let Some(_leave) = kernel::shared(&[]) else { return };
    let pid = pid_of_nobody();
    assert_refused(&once(&["--pid", &pid]), 2, &format!("agent: --pid {pid}: there is no such process"));
    let nowhere = "agent: --debug-dir /nowhere: there is no such directory";
    assert_refused(&once(&["--debug-dir", "/nowhere"]), 2, nowhere);
    assert_refused(&once(&["--frequency", "0"]), 2, "--frequency 0: at least one sample a second");
    let limit =
        fs::read_to_string("/proc/sys/kernel/perf_event_max_sample_rate").expect("a kernel with perf");
    let above = limit.trim().parse::<u32>().expect("a number") + 1;
    let refused = once(&["--frequency", &above.to_string()]);
    assert_refused(&refused, 2, &format!("allows at most {} ", limit.trim()));
    assert_refused(&once(&["--ring-size", "5000"]), 2, "power of two");
    for bytes in ["0", "1000000", "1500000000", "18446744073709551615"] {
        let reason = format!("--unwind-table-memory {bytes}: whole MiB are needed, from 1048576 (1 MiB)");
        assert_refused(&once(&["--unwind-table-memory", bytes]), 2, &reason);
    }
    assert_refused(&once(&["--unwind-table-memory", "8MiB"]), 2, "invalid value '8MiB'");
    assert_refused(&once(&["--slow-unwinds", "1000000"]), 2, "--slow-unwinds 1000000: at most 10000");
    assert_refused(&once(&["--cgroup", "/tmp"]), 2, "--cgroup /tmp: not a cgroup v2 directory");
    assert_refused(&once(&["--cgroup", "/nonexistent"]), 2, "--cgroup /nonexistent: No such file");
    assert_refused(&once(&["--format", "gif"]), 2, "gif");
    assert_refused(&once(&["--no-such-flag"]), 2, "--no-such-flag");
}

/// A directory that cannot be made or written to is found out before the window, whoever runs the agent: root is
/// stopped by a file in the path too.
#[test]
fn an_unwritable_output_is_refused_before_the_window() {
    let Some(_leave) = kernel::shared(&[]) else { return };
    let directory = TempDir::new().expect("a directory");
    fs::write(directory.path().join("file"), "not a directory").expect("a file");
    for output in ["file", "file/below"] {
        let output = directory.path().join(output);
        let output = output.to_str().expect("UTF-8");
        assert_refused(&once(&["--output", output]), 2, &format!("--output {output}: cannot write there"));
    }
    assert_refused(&once(&["--output", "/proc/nodeprof"]), 2, "cannot write there");
}

/// Standard output takes one profile in one format.
#[test]
fn two_formats_on_standard_output_are_refused() {
    let Some(_leave) = kernel::shared(&[]) else { return };
    let refused = once(&["--output", "-", "--format", "json,svg"]);
    assert_refused(&refused, 2, "--output -: standard output takes one format");
}

/// Without `--once` the agent says what it can do; it does not just end.
#[test]
fn no_task_is_refused() {
    let refused = output_within(&mut agent(), Duration::from_secs(20));
    assert_refused(&refused, 2, "agent --once");
}

/// The agent as a user without privileges: in a place that this user can reach, run with `arguments`.
fn as_nobody(arguments: &[&str]) -> Output {
    let directory = TempDir::new().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let copy = directory.path().join("agent");
    fs::copy(agent().get_program(), &copy).expect("the agent can be copied");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"]);
    command.arg(copy).args(arguments).current_dir(directory.path());
    output_within(&mut command, Duration::from_secs(20))
}

/// Without privileges, one sentence names the capability and the command that helps, and the status is 3.
#[test]
fn missing_privileges_are_named() {
    let Some(_leave) = kernel::shared(&["setpriv"]) else { return };
    let refused = as_nobody(&["--once", "--duration", "60s"]);
    assert_refused(&refused, 3, "agent: profiling needs CAP_BPF: run `sudo agent --once`");
    let message = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(message.lines().count(), 1, "{message}");
}

/// `agent check` says that root can profile here, and tells anybody else what is missing and what to do.
#[test]
fn check_knows_what_works() {
    let Some(_leave) = kernel::shared(&["setpriv"]) else { return };
    let check = output_within(agent().arg("check"), Duration::from_secs(20));
    let report = String::from_utf8_lossy(&check.stdout);
    assert_eq!(check.status.code(), Some(0), "{report}");
    assert!(report.contains("profilers: cpu works") && !report.contains("FAIL"), "{report}");

    let check = as_nobody(&["check"]);
    let report = String::from_utf8_lossy(&check.stdout);
    assert_eq!(check.status.code(), Some(3), "{report}");
    let capabilities = report.lines().find(|line| line.contains("capabilities")).unwrap_or_default();
    assert!(capabilities.starts_with("FAIL") && capabilities.contains("CAP_BPF, CAP_PERFMON"), "{report}");
    assert!(report.contains("profilers: cpu does not work"), "{report}");
}
