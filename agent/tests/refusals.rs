//! Where the agent cannot profile, it says what is missing and what to do, and ends with status 3.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use harness::agent_run::{agent, output_within};
use harness::kernel;
use tempfile::TempDir;

/// Runs `command`, which runs the agent in a place where it cannot profile, with `agent --once` and `agent check`: both end with
/// status 3; the one says it in a line that begins with `says`, the other in the line of `what`.
fn assert_refused(command: impl Fn() -> Command, says: &str, what: &str) {
    let directory = TempDir::new().expect("a directory");
    let run = |arguments: &[&str]| -> Output {
        let mut command = command();
        output_within(command.args(arguments).current_dir(directory.path()), Duration::from_secs(20))
    };
    let refused = run(&["--once", "--duration", "60s"]);
    let message = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{message}");
    assert!(message.starts_with(says) && message.lines().count() == 1, "{message}");
    assert!(refused.stdout.is_empty());
    assert_eq!(directory.path().read_dir().expect("a directory").count(), 0, "no output is left behind");

    let check = run(&["check"]);
    let report = String::from_utf8_lossy(&check.stdout);
    assert_eq!(check.status.code(), Some(3), "{report}");
    let line = report.lines().find(|line| line.starts_with("FAIL") && line.contains(what));
    assert!(line.is_some(), "{what}: {report}");
    assert!(report.contains("profilers: cpu does not work"), "{report}");
}

/// A kernel without BTF: an empty directory hides it, for this process only.
#[test]
fn a_kernel_without_btf_is_refused() {
    let Some(_leave) = kernel::shared(&["unshare", "mount"]) else { return };
    let without_btf = || {
        let mut unshare = Command::new("unshare");
        let hide = "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"";
        unshare.args(["--mount", "sh", "-c", hide, "sh"]).arg(agent().get_program()).env_remove("RUST_LOG");
        unshare
    };
    let says = "agent: this kernel has no BTF (/sys/kernel/btf/vmlinux is missing): use a kernel built with \
                CONFIG_DEBUG_INFO_BTF=y";
    assert_refused(without_btf, says, "CONFIG_DEBUG_INFO_BTF=y");
}

/// A kernel that is too old, by what `uname` says.
#[test]
fn an_old_kernel_is_refused() {
    let Some(_leave) = kernel::shared(&["setarch"]) else { return };
    let old = || {
        let mut setarch = Command::new("setarch");
        setarch.arg("--uname-2.6").arg(agent().get_program()).env_remove("RUST_LOG");
        setarch
    };
    assert_refused(
        old,
        "agent: this kernel is 2.6; profiling needs 5.10 or newer",
        "5.10 or newer is needed",
    );
}

/// A reader that goes away early, as `head` does, is no error: the agent ends in silence.
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let Some(_leave) = kernel::shared(&[]) else { return };
    let once = ["--once", "--duration", "200ms", "--output", "-", "--format"];
    let formats = ["pprof", "json", "folded", "text", "svg"].map(|format| [&once[..], &[format]].concat());
    for arguments in formats.iter().map(Vec::as_slice).chain([&["check"][..], &["--help"]]) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = agent();
        command.args(arguments).env("RUST_LOG", "error").stdout(writer).stderr(Stdio::piped());
        let mut running = harness::running::Running::start(&mut command);
        drop(command);
        let status = running.wait_at_most(Duration::from_secs(20));
        let mut message = String::new();
        let mut stderr = running.child().stderr.take().expect("a pipe");
        std::io::Read::read_to_string(&mut stderr, &mut message).expect("UTF-8");
        assert!(status.success() && message.is_empty(), "{arguments:?}: {status} {message}");
    }
}
