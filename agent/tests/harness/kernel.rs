//! Leave to use the running kernel: privileges, tools, and whether the machine is ours for the moment.

use std::fs::File;
use std::path::Path;

use agent::kernel::perf_event::PerfEvent;
use agent::kernel::programs::KERNEL_BTF;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Uid;

use super::{is_switched_on, require, skip};

/// Leave to use the kernel, until it is dropped.
pub(crate) struct Leave {
    _lock: Flock<File>,
}

/// Leave for a test that measures: no other live test runs meanwhile, in whatever process. `None` when the test has to
/// be skipped because it lacks privileges or one of `tools`.
pub(crate) fn alone(tools: &[&str]) -> Option<Leave> {
    leave(tools, FlockArg::LockExclusive)
}

/// Leave for a test that measures nothing: others like it may run meanwhile.
pub(crate) fn shared(tools: &[&str]) -> Option<Leave> {
    leave(tools, FlockArg::LockShared)
}

/// The file that holds the lock is the kernel's own, since the kernel is what is shared: so tests of several
/// checkouts do not disturb each other either, and nothing is left behind.
fn leave(tools: &[&str], kind: FlockArg) -> Option<Leave> {
    if is_switched_on("NODEPROF_NO_LIVE") {
        skip("NODEPROF_NO_LIVE=1 says to leave the kernel alone");
        return None;
    }
    let possible = require("root", Uid::effective().is_root())
        && require(KERNEL_BTF, Path::new(KERNEL_BTF).exists())
        && require("perf_event_open", PerfEvent::cpu_clock(0, 10_000_000).is_ok())
        && tools.iter().all(|tool| require(tool, is_in_path(tool)));
    possible.then(|| {
        let file = File::open(KERNEL_BTF).expect("root can read the kernel's BTF");
        Leave { _lock: Flock::lock(file, kind).map_err(|(_, errno)| errno).expect("files can be locked") }
    })
}

/// Whether there is such a program.
pub(crate) fn is_in_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
}
