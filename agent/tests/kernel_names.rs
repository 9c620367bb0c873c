//! Names of kernel code that changes while the agent runs.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use harness::agent_run::{AgentRun, profile};
use harness::kernel;
use harness::running::Running;
use harness::workload::Workload;

/// A BPF program that is loaded after the agent has read kallsyms, and is gone before the window ends, has its name.
#[test]
fn a_program_that_comes_and_goes_has_its_name() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let workload = Workload::c("bpf_burn.c", "bpf_burn", &[]);
    let mut agent = AgentRun::start(&["--duration", "6s", "--frequency", "199"]);
    // Named, and so read, by now.
    agent.wait_for("user stacks in a second");
    let mut burning = Running::start(workload.command().stdout(Stdio::piped()));
    let mut name = String::new();
    let stdout = burning.child().stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut name).expect("a readable pipe");
    let name = name.trim_end();
    assert!(name.starts_with("bpf_prog_") && name.ends_with("_burns_here"), "{name:?}");
    agent.wait_for("user stacks in a second");
    agent.wait_for("user stacks in a second");
    let pid = burning.pid();
    drop(burning);
    let profiled = agent.finish();
    assert!(!fs::read_to_string("/proc/kallsyms").expect("it is there").contains(name), "it is unloaded");
    let (samples, _) = profiled.profile.total_of(pid);
    let named = profiled.profile.count_with(pid, |frame| frame.name == name && frame.module == "[bpf]");
    assert!(samples > 50 && named * 100 >= samples * 90, "{named} of {samples} samples");
}

/// `kernel.kptr_restrict` with another value, until this is dropped.
struct Restricted(String);

const KPTR_RESTRICT: &str = "/proc/sys/kernel/kptr_restrict";

impl Restricted {
    fn to(value: &str) -> Self {
        let before = fs::read_to_string(KPTR_RESTRICT).expect("root can read it");
        fs::write(KPTR_RESTRICT, value).expect("root can write it");
        Self(before)
    }
}

impl Drop for Restricted {
    fn drop(&mut self) {
        fs::write(KPTR_RESTRICT, &self.0).expect("root can write it");
    }
}

/// Where the kernel hides its addresses from everybody that is said once, with what helps; kernel frames are counted as nameless, and
/// programs keep their names.
#[test]
fn hidden_addresses_are_told() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let workload = Workload::c("system_calls.c", "system_calls", &[]);
    let busy = Running::start(&mut workload.command());
    let restricted = Restricted::to("2");
    let profiled = profile(&["--duration", "2s", "--frequency", "199"]);
    drop(restricted);
    let told = profiled.log.iter().filter(|line| line.contains("kptr_restrict")).count();
    assert_eq!(told, 1, "{:#?}", profiled.log);
    let hidden = profiled.profile.accounting.unresolved("kernel_hidden");
    let mut kernel = profiled.profile.frames().filter(|frame| frame.kind == "kernel").peekable();
    assert!(kernel.peek().is_some() && hidden > 0, "{hidden}");
    assert!(kernel.all(|frame| !frame.named && frame.name.starts_with("[kernel]+0x")));
    assert!(profiled.profile.count_with(busy.pid(), |frame| frame.kind == "user" && frame.named) > 0);
}
