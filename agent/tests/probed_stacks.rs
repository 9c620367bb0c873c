//! Stacks of functions that are under somebody's uretprobes: the kernel has replaced their return addresses.

mod harness;

use harness::agent_run::AgentRun;
use harness::call_chain::{MAIN, chain, ends_as};
use harness::kernel;
use harness::profiled::Frame;
use harness::uretprobe::Uretprobe;
use harness::workload::Workload;

/// Samples without which a chain proves nothing.
const ENOUGH: u64 = 30;

/// Stacks go on behind a probed function, behind one with two probes, and behind one that is on the stack four times; those that
/// the program walks and those that the agent finishes.
#[test]
fn stacks_below_uretprobes_are_whole() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let workload = Workload::plain("gcc", "stacks/probed.c", "probed", &[]);
    let running = workload.start();
    let attach = |function| Uretprobe::attach(workload.program(), function, running.pid());
    let _probes = [attach("probed"), attach("probed"), attach("nested")];

    let pid = running.pid().to_string();
    let run = AgentRun::start(&["--duration", "3s", "--frequency", "199", "--pid", &pid]);
    let profile = run.finish().profile;

    let probed = chain(&["leaf", "probed", "caller", "main"], MAIN);
    let nested = chain(&["leaf", "nested", "nested", "nested", "nested", "caller", "main"], MAIN);
    let (mut total, mut wrong, mut below) = (0, Vec::new(), [0; 2]);
    for sample in profile.of(running.pid()) {
        let stack: Vec<Frame<'_>> = profile.stack(sample).filter(|frame| frame.kind != "kernel").collect();
        total += sample.count();
        let [is_probed, is_nested] = [&probed, &nested].map(|names| ends_as(&stack, names));
        if sample.truncated.is_some() || !is_probed && !is_nested {
            let names: Vec<_> = stack.iter().map(|frame| frame.name).collect();
            wrong.push(format!("{} × {:?} {}", sample.count(), sample.truncated, names.join(" < ")));
        }
        below[0] += sample.count() * u64::from(is_probed && stack.len() == probed.len());
        below[1] += sample.count() * u64::from(is_nested && stack.len() == nested.len());
    }
    println!("{total} samples, whole below probes {below:?}, wrong {wrong:#?}");
    // For an instant the return address is replaced already and not yet in the kernel's list.
    assert!(wrong.len() as u64 * 50 <= total, "of {total}: {wrong:#?}");
    assert!(below.iter().all(|count| *count >= ENOUGH), "{below:?}");
}
