//! Parse, compose, run.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::sync::Arc;

use agent::cli::{Cli, Command, ProfileArgs};
use agent::process::module::ModuleTable;
use agent::run::error::RunError;
use agent::run::{check, once};
use agent::symbol::resolver::Resolver;
use clap::Parser as _;
use tracing_subscriber::EnvFilter;

/// Bytes for names and modules' indexes.
const SYMBOL_BUDGET: usize = 24 << 20;

fn main() -> ExitCode {
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
    let resolver = Resolver::new(modules.clone(), SYMBOL_BUDGET).map_err(RunError::failed)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::failed)?;
    runtime.block_on(once::run(args, prepared, modules, resolver))
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
