//! `agent --once`: one window, a report, files, the end.

use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{FutexClasses, ProfileArgs, ProfilerName};
use crate::kernel::programs::Selection;
use crate::metrics::SelfMetrics;
use crate::process::module::ModuleTable;
use crate::profile::accounting::Accounting;
use crate::profile::finish::{Finished, NamedFrames, finish, finish_faults};
use crate::profile::model::{Profile, ProfileKind, ValueType};
use crate::profile::wait_window::WaitWindow;
use crate::profiler::collector::monotonic_now;
use crate::profiler::offcpu::SwitchLedger;
use crate::profiler::wait_profiles;
use crate::report::table;
use crate::run::books;
use crate::run::error::RunError;
use crate::run::growth;
use crate::run::output::{Output, ignore_closed_pipe};
use crate::run::preflight;
use crate::run::progress::Progress;
use crate::run::session::{FaultBooks, Gathered, Session};
use crate::symbol::resolver::Resolver;
use crate::table_use::TableUse;

/// What a run needs and what was found in order before anything was started.
pub struct Prepared {
    selection: Selection,
    debug_directories: Vec<PathBuf>,
    output: Output,
}

impl Prepared {
    /// Where debug files are looked for on the host; absolute.
    pub fn debug_directories(&self) -> &[PathBuf] {
        &self.debug_directories
    }
}

/// Checks options, privileges, kernel and the place for the profiles: a mistake costs no window.
pub fn prepare(args: &ProfileArgs) -> Result<Prepared, RunError> {
    let selection = preflight::check_selection(args)?;
    preflight::check_support()?;
    let debug_directories = preflight::check_debug_directories(&args.symbols.debug_dir)?;
    let output = Output::prepare(args, SystemTime::now())?;
    Ok(Prepared { selection, debug_directories, output })
}

/// Profiles one window with the one resolver.
pub async fn run(
    args: &ProfileArgs,
    prepared: Prepared,
    modules: Arc<ModuleTable>,
    resolver: Arc<Resolver>,
    metrics: &SelfMetrics,
) -> Result<(), RunError> {
    let Prepared { selection, output, .. } = prepared;
    let mut session = Session::start(args, &selection, &[], modules, resolver.clone(), metrics)?;
    tracing::info!("profiling has begun");
    let started = SystemTime::now();
    let progress = Progress::new(args.duration);
    let interrupted = interrupt()?;
    let window_began = monotonic_now();
    tokio::select! {
        broken = session.collect(|samples| progress.show(samples)) => broken?,
        () = tokio::time::sleep(args.duration) => {}
        () = interrupted => tracing::info!("interrupted: the window ends here"),
    }
    let duration = Duration::from_nanos(monotonic_now() - window_began);
    progress.done();
    let gathered = session.stop()?;
    log_first_sample(&gathered);
    log_unwinding(&gathered);
    warn_of_lost_events(&gathered);
    let about = About { started, duration, host: host_name() };
    let profiles = profiles(gathered, &resolver, &about, args);
    tracing::debug!(debug_files = ?resolver.debug_files().counts(), memory = ?resolver.memory_use(), "names");
    log_metrics(metrics)?;
    deliver(&profiles, &output)
}

/// What a run's profiles have in common.
struct About {
    started: SystemTime,
    duration: Duration,
    host: String,
}

fn profiles(mut gathered: Gathered, resolver: &Resolver, about: &About, args: &ProfileArgs) -> Vec<Profile> {
    let mut profiles = Vec::new();
    if gathered.samples_cpus {
        profiles.push(cpu_profile(&gathered, resolver, about));
    }
    if let Some(waits) = gathered.waits.take() {
        profiles.extend(wait_profiles(&mut gathered.windows.offcpu, &waits, resolver, about, args));
    }
    if let Some(faults) = gathered.faults.take() {
        profiles.push(fault_profile(&gathered, &faults, resolver, about));
    }
    profiles
}

fn fault_profile(gathered: &Gathered, books: &FaultBooks, resolver: &Resolver, about: &About) -> Profile {
    let FaultBooks { sampling, ledger, .. } = books;
    for (cpu, ledger) in ledger {
        tracing::debug!(cpu, ?ledger, "page faults");
    }
    let window = &gathered.windows.faults;
    let looks = gathered.collector.page_looks();
    tracing::debug!(looks, of_unknown_size = window.of_unknown_size(), "pages that were looked at");
    let weight = |cpu| ledger.get(&cpu).map_or(sampling.mean(), |ledger| ledger.weight(*sampling));
    let finished = finish_faults(window, resolver, weight);
    let accounting = books::balance_faults(ledger.values(), &gathered.collector, &finished);
    let memory_growth = growth::of(window, weight, books, &gathered.collector);
    let types = [("faults", "count"), ("resident", "bytes")];
    let period = sampling.mean().round() as i64;
    let profile = lay_out(ProfileKind::PageFaults, about, types, period, finished, accounting);
    let period_type = profile.sample_types[0];
    Profile { period_type, memory_growth, ..profile }
}

fn cpu_profile(gathered: &Gathered, resolver: &Resolver, about: &About) -> Profile {
    let Gathered { windows, period, ledger, collector, .. } = gathered;
    let period = *period;
    for (cpu, ledger) in ledger {
        tracing::debug!(cpu, ?ledger, "ledger");
    }
    let weight = |number| ledger.get(&number).map_or(period as f64, |ledger| ledger.weight(period));
    let finished = finish(&windows.cpu, resolver, |line| {
        vec![line.count.total() as i64, line.count.weighted(weight).round() as i64]
    });
    let accounting = books::balance(ledger.values(), collector, &finished);
    let types = [("samples", "count"), ("cpu", "nanoseconds")];
    lay_out(ProfileKind::Cpu, about, types, period as i64, finished, accounting)
}

/// The profiles that are made from waits: for each profiler that was asked for, who waited and who ended that.
fn wait_profiles(
    window: &mut WaitWindow,
    ledger: &SwitchLedger,
    resolver: &Resolver,
    about: &About,
    args: &ProfileArgs,
) -> Vec<Profile> {
    tracing::debug!(switches = ledger.switches, counters = ?ledger.counters, tasks = ledger.tasks.len(), "switches");
    let left_out = books::left_out(args.shortest_wait(), ledger, window.unended_left_out());
    let (lines, frames) = window.lines();
    let named = NamedFrames::of(frames, resolver);
    let without = |(finished, books): (_, Accounting)| (finished, books.with_left_out(left_out));
    // Every wait is timed, so there is no period.
    let lay_out = |kind, types, (finished, books)| lay_out(kind, about, types, 1, finished, books);
    let mut profiles = Vec::new();
    if args.wants(ProfilerName::Offcpu) {
        let finished = wait_profiles::offcpu(&lines, &named);
        let books = books::balance_waits(ledger, left_out, &finished);
        profiles.push(lay_out(ProfileKind::OffCpu, OFFCPU_TYPES, (finished, books)));
        let wakers = wait_profiles::wakers(&lines, &named);
        profiles.push(lay_out(ProfileKind::OffCpuWakers, OFFCPU_TYPES, without(wakers)));
    }
    if args.wants(ProfilerName::Mutex) {
        let all = args.futex_classes == FutexClasses::All;
        let waiters = wait_profiles::mutex(&lines, &named, all);
        profiles.push(lay_out(ProfileKind::Mutex, MUTEX_TYPES, without(waiters)));
        let holders = wait_profiles::mutex_holders(&lines, &named, all);
        profiles.push(lay_out(ProfileKind::MutexHolders, MUTEX_TYPES, without(holders)));
    }
    profiles
}

/// What an off-CPU profile counts.
const OFFCPU_TYPES: [(&str, &str); 2] = [("switches", "count"), ("off_cpu", "nanoseconds")];
/// What a profile of locks counts: as in Go's.
const MUTEX_TYPES: [(&str, &str); 2] = [("contentions", "count"), ("delay", "nanoseconds")];

fn lay_out(
    kind: ProfileKind,
    about: &About,
    types: [(&'static str, &'static str); 2],
    period: i64,
    finished: Finished,
    accounting: Accounting,
) -> Profile {
    let sample_types = types.map(|(name, unit)| ValueType { name, unit });
    Profile {
        kind,
        started: about.started,
        duration: about.duration,
        host: about.host.clone(),
        period_type: sample_types[1],
        sample_types: sample_types.to_vec(),
        period,
        modules: finished.modules,
        functions: finished.functions,
        locations: finished.locations,
        samples: finished.samples,
        accounting,
        memory_growth: Vec::new(),
    }
}

/// Rows of each table of a profile that is not the first: all are on one screen or two.
const MORE_ROWS: usize = 9;

fn deliver(profiles: &[Profile], output: &Output) -> Result<(), RunError> {
    if !output.leaves_stdout() {
        // One profiler runs. Of its profiles the first is what was asked for.
        let first = profiles.first().map_or(Ok(()), |profile| output.write(profile).map(drop));
        return ignore_closed_pipe(first).map_err(RunError::failed);
    }
    let stdout = io::stdout();
    let color = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let options = table::TableOptions { color, ..table::TableOptions::default() };
    let mut out = stdout.lock();
    for (index, profile) in profiles.iter().enumerate() {
        let rows = if index == 0 { options.rows } else { MORE_ROWS };
        let options = table::TableOptions { rows, ..options };
        ignore_closed_pipe(table::write_top(profile, &mut out, &options)).map_err(RunError::failed)?;
        let files = output.write(profile).map_err(RunError::failed)?;
        let written = files.iter().try_for_each(|file| writeln!(out, "wrote {}", file.display()));
        ignore_closed_pipe(written.and_then(|()| writeln!(out))).map_err(RunError::failed)?;
    }
    Ok(())
}

/// Ends when the user or the system asks for an end.
fn interrupt() -> Result<impl Future<Output = ()>, RunError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::failed)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Samples of processes that nothing told of are read from `/proc` late, or stay unknown: that has a reason.
fn warn_of_lost_events(gathered: &Gathered) {
    let lost = gathered.collector.sideband().lost();
    if lost > 0 {
        tracing::warn!(lost, "events of processes are missing: some may have stayed unknown");
    }
}

/// Until there is a page of metrics, the log shows them.
fn log_metrics(metrics: &SelfMetrics) -> Result<(), RunError> {
    for line in metrics.text().map_err(RunError::failed)?.lines().filter(|line| !line.starts_with('#')) {
        tracing::debug!("metric {line}");
    }
    Ok(())
}

fn log_unwinding(gathered: &Gathered) {
    let Gathered { collector, windows, .. } = gathered;
    tracing::debug!(
        samples = windows.samples(),
        finished_in_user_space = collector.finished_in_user_space(),
        arena = ?collector.unwinder().memory_use(),
        "user stacks"
    );
    for TableUse { name, entries, bytes, budget } in collector.table_uses() {
        tracing::debug!(name, entries, bytes, budget, "table");
    }
}

fn log_first_sample(gathered: &Gathered) {
    let first = gathered.ledger.values().map(|ledger| ledger.counters.first_timestamp);
    let first = first.filter(|time| *time > 0).min();
    if let Some(first) = first {
        let milliseconds = first.saturating_sub(gathered.started) / 1_000_000;
        tracing::info!(milliseconds, "first sample after the start");
    }
}
