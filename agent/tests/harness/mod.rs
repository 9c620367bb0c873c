//! What the integration tests share: workloads, runs of the agent, and saying honestly that something could not be
//! tested here.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test uses its own part of the harness")]

pub(crate) mod agent_run;
pub(crate) mod call_chain;
pub(crate) mod counted_heap;
pub(crate) mod function;
pub(crate) mod fuse;
pub(crate) mod futex_waits;
pub(crate) mod kernel;
pub(crate) mod kernel_symbols;
pub(crate) mod log;
pub(crate) mod many_modules;
pub(crate) mod profiled;
pub(crate) mod running;
pub(crate) mod session;
pub(crate) mod stripped;
pub(crate) mod uretprobe;
pub(crate) mod waiting;
pub(crate) mod workload;

use std::fs::File;
use std::io::Write as _;

/// Names the file in which skips are noted: the test runner hides what passing tests print.
const SKIP_LOG: &str = "NODEPROF_SKIP_LOG";

/// Whether a test that needs `what` can run. If not, says so on standard output (`skipped: …`) and in the file that
/// `NODEPROF_SKIP_LOG` names, and returns false, unless `NODEPROF_REQUIRE_LIVE=1` says that this machine has
/// everything: then a missing piece is a failure.
pub(crate) fn require(what: &str, available: bool) -> bool {
    if !available {
        skip(&format!("{what} is missing"));
    }
    available
}

/// Notes that the current test is skipped, and why; with `NODEPROF_REQUIRE_LIVE=1` fails it instead.
pub(crate) fn skip(reason: &str) {
    assert!(
        !is_switched_on("NODEPROF_REQUIRE_LIVE"),
        "{reason}, and NODEPROF_REQUIRE_LIVE=1 demands the test"
    );
    note_skip(reason);
}

/// Whether the environment variable is set to 1.
fn is_switched_on(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}

fn note_skip(reason: &str) {
    let thread = std::thread::current();
    // The runner names a test's thread after the test.
    let line = format!("skipped: {}: {reason}\n", thread.name().unwrap_or("a test"));
    print!("{line}");
    if let Some(path) = std::env::var_os(SKIP_LOG) {
        // One write, appended: tests in other threads and processes write to the same file.
        let noted = File::options().create(true).append(true).open(&path);
        noted.and_then(|mut log| log.write_all(line.as_bytes())).expect("the skip is noted");
    }
}
