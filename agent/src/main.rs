//! Parse, compose, run.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::sync::Arc;

use agent::cli::{Cli, Command, ProfileArgs};
use agent::governor::heap;
use agent::metrics::SelfMetrics;
use agent::process::module::ModuleTable;
use agent::run::error::RunError;
use agent::run::{check, once};
use agent::symbol::debug_file::DebugFiles;
use agent::symbol::resolver::{Resolver, SymbolLimits};
use clap::Parser as _;
use tracing_subscriber::EnvFilter;

/// Bytes for which modules' debug files are where.
const DEBUG_FILE_BUDGET: usize = 256 << 10;

fn main() -> ExitCode {
    heap::use_few_arenas();
    let cli = Cli::parse();
    log_to_stderr();
    let result = match cli.command {
        Some(Command::Check) => check::run(&mut io::stdout().lock()),
        None => profile(&cli.profile),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: {error}");
            error.exit_code()
        }
    }
}

fn profile(args: &ProfileArgs) -> Result<(), RunError> {
    if !args.once {
        return Err(RunError::Usage(
            "nothing to do: `agent --once` profiles this machine for ten seconds, `agent --help` lists the rest \
             (this version does not yet run continuously)"
                .to_owned(),
        ));
    }
    let prepared = once::prepare(args)?;
    let modules = Arc::new(ModuleTable::default());
    let limits = SymbolLimits {
        memory: usize::try_from(args.symbols.symbol_memory).unwrap_or(usize::MAX),
        lines: !args.symbols.no_lines,
        debug_info: args.symbols.dwarf_max_module,
        jvm_perf_map: args.symbols.jvm_perf_map,
        style: args.symbols.demangle,
    };
    let debug_files = Arc::new(DebugFiles::new(prepared.debug_directories().to_vec(), DEBUG_FILE_BUDGET));
    let metrics = SelfMetrics::new().map_err(RunError::failed)?;
    let resolver = Resolver::new(modules.clone(), debug_files, limits, &metrics).map_err(RunError::failed)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::failed)?;
    runtime.block_on(once::run(args, prepared, modules, resolver, &metrics))
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
}
