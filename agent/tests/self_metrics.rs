//! One resolver, one reading of kallsyms, one scan of `/proc`, by the agent's own metrics; and that these would tell of more.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent::metrics::SelfMetrics;
use agent::process::module::ModuleTable;
use agent::symbol::debug_file::DebugFiles;
use agent::symbol::demangle::NameStyle;
use agent::symbol::frame::Frame;
use agent::symbol::jit::jvm::JvmPerfMap;
use agent::symbol::resolver::{Resolver, SymbolLimits};
use harness::agent_run::AgentRun;
use harness::kernel;
use harness::session::InProcess;

/// What of metrics' text says how often what is dear is there or was done, when it is not once each.
fn not_once<'a>(text: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, &'a str> {
    let mut wanted: BTreeMap<_, _> =
        ["nodeprof_resolvers", "nodeprof_kallsyms_loads_total", "nodeprof_proc_scans_total"]
            .map(|name| (name, "missing"))
            .into();
    for (name, value) in text.filter_map(|line| line.rsplit_once(' ')) {
        if let Some(found) = wanted.get_mut(name) {
            *found = value;
        }
    }
    wanted.retain(|_, value| *value != "1");
    wanted
}

/// A resolver of somebody's own, which has read kallsyms when this returns: a function of the kernel had to have its name.
fn private_resolver(metrics: &SelfMetrics) -> Arc<Resolver> {
    let limits = SymbolLimits {
        memory: 1 << 20,
        lines: false,
        debug_info: 0,
        jvm_perf_map: JvmPerfMap::Off,
        style: NameStyle::Full,
    };
    let debug_files = Arc::new(DebugFiles::new(Vec::new(), 1 << 10));
    let resolver = Resolver::new(Arc::new(ModuleTable::default()), debug_files, limits, metrics);
    let resolver = resolver.expect("threads can be started");
    resolver.resolve(Frame::Kernel { address: u64::MAX });
    resolver
}

/// The agent with everything on, on a machine with a process of each kind, has one resolver, reads kallsyms once and scans `/proc`
/// once.
#[test]
fn once_each_with_everything_on() {
    let Some(_leave) = kernel::alone(&[]) else { return };
    let all =
        ["--duration", "3s", "--profilers", "cpu,offcpu,memory", "--per-thread", "--jvm-perf-map", "auto"];
    let profiled = AgentRun::start(&all).finish();
    assert!(profiled.profile.frames().any(|frame| frame.kind == "kernel" && frame.named));
    let logged = profiled.log.iter().filter_map(|line| line.split_once("metric ").map(|(_, metric)| metric));
    assert_eq!(not_once(logged), BTreeMap::new());
}

/// A run that is composed as the agent passes the check that a run composed with a resolver for each of four profilers and an exporter
/// besides fails, whether these are handed the agent's metrics or make their own; and passes again when they are gone.
#[test]
fn six_resolvers_are_noticed() {
    let Some(_leave) = kernel::alone(&[]) else { return };
    let mut run = InProcess::start(&["--duration", "1s"], ModuleTable::DEFAULT_BUDGET);
    run.collect(Duration::from_secs(1));
    run.resolver.resolve(Frame::Kernel { address: u64::MAX });
    let text = || run.metrics.text().expect("good metrics");
    assert_eq!(not_once(text().lines()), BTreeMap::new());

    let sharing: Vec<_> = (0..5).map(|_| private_resolver(&run.metrics)).collect();
    let six = [("nodeprof_resolvers", "6"), ("nodeprof_kallsyms_loads_total", "6")];
    assert_eq!(not_once(text().lines()), BTreeMap::from(six));
    drop(sharing);

    let own = SelfMetrics::new().expect("good names");
    let hiding: Vec<_> = (0..5).map(|_| private_resolver(&own)).collect();
    assert_eq!(not_once(text().lines()).get("nodeprof_resolvers"), Some(&"6"));
    drop(hiding);
    assert_eq!(not_once(text().lines()).get("nodeprof_resolvers"), None);
}

/// A second table of processes that scans `/proc` is noticed.
#[test]
fn a_second_scan_is_noticed() {
    let Some(_leave) = kernel::alone(&[]) else { return };
    let run = InProcess::start(&["--duration", "1s"], ModuleTable::DEFAULT_BUDGET);
    let modules = Arc::new(ModuleTable::default());
    let mut second = agent::process::table::ProcessTable::new(modules, 1 << 20, &run.metrics);
    second.scan(0).expect("/proc is there");
    let text = run.metrics.text().expect("good metrics");
    assert_eq!(not_once(text.lines()).get("nodeprof_proc_scans_total"), Some(&"2"));
}
