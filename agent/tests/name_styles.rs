//! `--demangle`: one function in each style.

mod harness;

use std::collections::BTreeSet;

use harness::agent_run::profile;
use harness::kernel;
use harness::workload::Workload;

/// A generic function of Rust's has its arguments, or has not, or has the linker's name, which is pprof's system name in all cases.
#[test]
fn a_generic_function_in_each_style() {
    let Some(_leave) = kernel::alone(&["rustc"]) else { return };
    let workload = Workload::rust("burn.rs", "burn_rust");
    let running = workload.start();
    let pid = running.pid().to_string();
    let mut linker_names = BTreeSet::new();
    for style in [None, Some("full"), Some("short"), Some("none")] {
        let mut arguments = vec!["--duration", "2s", "--frequency", "199", "--no-lines", "--pid", &pid];
        arguments.extend(style.iter().flat_map(|style| ["--demangle", style]));
        let found = profile(&arguments);
        let (start, end) = match style {
            None | Some("full") => ("<burn::furnace::Furnace<", "> as burn::furnace::Burn>::burn"),
            Some("short") => ("<burn::furnace::Furnace as burn::furnace::Burn>::burn", ""),
            Some(_) => ("_", ""),
        };
        let is_it = |name: &str| {
            name.starts_with(start) && name.ends_with(end) && name.contains("urnace") && name.contains("burn")
        };
        let (all, _) = found.profile.total_of(running.pid());
        let right = found.profile.count_with(running.pid(), |frame| is_it(frame.name));
        let names: BTreeSet<_> = found.profile.frames().map(|frame| frame.name).collect();
        assert!(all > 50 && right * 100 >= all * 90, "{style:?}: {right} of {all}: {names:?}");

        let pprof = found.pprof();
        let text = |index: i64| pprof.string_table[index as usize].clone();
        let named = pprof.function.iter().filter(|function| {
            let name = text(function.name);
            is_it(&name) && name.contains("Furnace") && !name.contains("main")
        });
        linker_names.insert(named.map(|function| text(function.system_name)).collect::<Vec<_>>());
    }
    assert_eq!(linker_names.len(), 1, "{linker_names:?}");
    let mut all = linker_names.iter().flatten();
    assert!(all.clone().count() > 0 && all.all(|name| name.starts_with("_R") || name.starts_with("_ZN")));
}
