//! Source lines and inlined functions, from a running program to every format.

mod harness;

use harness::agent_run;
use harness::kernel;
use harness::profiled::Profiled;
use harness::workload::Workload;

/// The functions on each sample's stack of process `pid`, leaf first, with how often it was seen.
fn stacks(profiled: &Profiled, pid: u32) -> Vec<(Vec<String>, u64)> {
    let profile = &profiled.profile;
    let names = |sample| profile.stack(sample).map(|frame| frame.name.to_owned()).collect();
    profile.of(pid).map(|sample| (names(sample), sample.count())).collect()
}

/// How many samples of process `pid` have `names` at the leaf, and how many there are.
fn with_leaf(profiled: &Profiled, pid: u32, names: &[&str]) -> (u64, u64) {
    let stacks = stacks(profiled, pid);
    let matching = stacks
        .iter()
        .filter(|(stack, _)| stack.iter().map(String::as_str).take(names.len()).eq(names.iter().copied()));
    (matching.map(|(_, count)| count).sum(), stacks.iter().map(|(_, count)| count).sum())
}

/// A program whose time is spent in inlined code: every format shows the chain, and pprof files and lines; `--no-lines` shows the one
/// function of the symbol table.
#[test]
fn inlined_functions_are_frames() {
    let Some(_leave) = kernel::shared(&["gcc"]) else { return };
    let workload = Workload::plain("gcc", "inlined.c", "inlined", &["-g"]);
    let running = workload.start();
    let pid = running.pid();
    let pid_text = pid.to_string();
    let arguments = ["--duration", "3s", "--pid", pid_text.as_str()];

    let profiled = agent_run::profile(&arguments);
    let (chain, all) = with_leaf(&profiled, pid, &["inner", "middle", "outer", "main"]);
    assert!(all >= 100 && chain * 100 >= all * 95, "{chain} of {all}: {:?}", stacks(&profiled, pid));

    let folded = profiled.text("cpu.folded");
    assert!(folded.lines().any(|line| line.contains(";main;outer;middle_[i];inner_[i] ")), "{folded}");

    let pprof = profiled.pprof();
    let text =
        |index: i64| pprof.string_table.get(index as usize).expect("an index into the strings").as_str();
    let location = pprof.location.iter().find(|location| location.line.len() == 3).expect("a chain of three");
    let mapping = pprof.mapping.iter().find(|mapping| mapping.id == location.mapping_id).expect("a mapping");
    assert!(mapping.has_inline_frames && text(mapping.filename).ends_with("/inlined"));
    let mut lines = location.line.iter().map(|line| {
        let function =
            pprof.function.iter().find(|function| function.id == line.function_id).expect("a function");
        (text(function.name), text(function.filename).ends_with("workloads/inlined.c"), line.line)
    });
    let innermost = lines.next().expect("a line");
    assert!(innermost.0 == "inner" && innermost.1 && (7..=8).contains(&innermost.2), "{innermost:?}");
    assert_eq!(lines.collect::<Vec<_>>(), [("middle", true, 13), ("outer", true, 18)]);

    let without = agent_run::profile(&[&arguments[..], &["--no-lines"]].concat());
    let (chain, all) = with_leaf(&without, pid, &["outer", "main"]);
    assert!(all >= 100 && chain * 100 >= all * 95, "{chain} of {all}: {:?}", stacks(&without, pid));
    assert!(without.pprof().function.iter().all(|function| function.filename == 0));
}
