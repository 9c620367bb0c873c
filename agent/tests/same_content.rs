//! Copies of one file, as a layer of an image is in many containers: another path, another inode, the same content.

mod harness;

use std::path::Path;
use std::process::{Command, Stdio};

use harness::agent_run::AgentRun;
use harness::call_chain::{MAIN_STATIC, chain, ends_as};
use harness::kernel;
use harness::profiled::{Frame, Profiled};
use harness::running::Running;
use harness::workload::Workload;

const COPIES: usize = 6;

fn start(program: &Path) -> Running {
    let running = Running::start(Command::new("setsid").arg(program).stdout(Stdio::null()));
    running.wait_for_program(program)
}

fn profile(running: &[Running]) -> Profiled {
    let pids: Vec<_> = running.iter().map(|running| running.pid().to_string()).collect();
    let mut arguments = vec!["--duration", "3s", "--frequency", "199", "--no-lines"];
    arguments.extend(pids.iter().flat_map(|pid| ["--pid", pid.as_str()]));
    AgentRun::start(&arguments).finish()
}

/// Rows and function indexes are made once for all copies of a program, and serve each of them: all stacks are whole, and each
/// process's frames are shown with its own path.
#[test]
fn copies_of_a_program_share_what_is_derived_from_it() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let flags = ["-static", "-no-pie"];
    let workload = Workload::plain("gcc", "stacks/chain.c", "original", &flags);
    let alone = {
        let one = [workload.start()];
        profile(&one)
    };
    let copies: Vec<_> = (0..COPIES).map(|number| workload.copy(&format!("copy-{number}"))).collect();
    let running: Vec<_> = copies.iter().map(|copy| start(copy)).collect();
    let together = profile(&running);

    let names = chain(&["leaf", "fourth", "third", "second", "first", "main"], MAIN_STATIC);
    for (copy, running) in copies.iter().zip(&running) {
        let (mut all, mut whole) = (0, 0);
        for sample in together.profile.of(running.pid()) {
            let stack: Vec<Frame<'_>> =
                together.profile.stack(sample).filter(|frame| frame.kind == "user").collect();
            all += sample.count();
            let is_own = stack.iter().all(|frame| Path::new(frame.module) == copy);
            whole +=
                sample.count() * u64::from(sample.truncated.is_none() && is_own && ends_as(&stack, &names));
        }
        println!("{}: {whole} of {all}", copy.display());
        assert!(all >= 20, "{all} samples of {}", copy.display());
        assert!(all - whole <= (all / 100).max(1), "{whole} of {all} stacks of {} are whole", copy.display());
    }
    // One at a time, and at the beginning nobody knows that they are one.
    let pages = [&alone, &together].map(|run| run.logged("arena=ArenaUse", "pages"));
    let indexes = [&alone, &together].map(|run| run.logged("table name=\"function indexes\"", "entries"));
    println!("pages {pages:?}, indexes {indexes:?}");
    assert!(pages[1] < 2 * pages[0], "{pages:?} pages of rows for one and for {COPIES}");
    assert_eq!(indexes[0], indexes[1], "function indexes for one and for {COPIES}");
}
