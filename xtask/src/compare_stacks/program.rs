//! Real programs under load, from Debian's packages: what is profiled.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use nix::unistd::User;

use crate::command;
use crate::packages::{self, Package};
use crate::process_group::ProcessGroup;

/// A program whose stacks are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// GCC's C++ compiler, on a file that includes the whole standard library, again and again
    Gcc,
    /// The Rust compiler that builds this, on a generated file, again and again
    Rustc,
    /// PostgreSQL under pgbench
    Postgres,
    /// Redis under redis-benchmark
    Redis,
}

/// Where Debian installs PostgreSQL: a directory for each version.
const POSTGRES: &str = "/usr/lib/postgresql";
/// The user that the package makes; the server refuses to run as root.
const POSTGRES_USER: &str = "postgres";
/// Until when a server must answer.
const PATIENCE: Duration = Duration::from_mins(1);

const LIBC_DEBUG: Package =
    Package { name: "libc6-dbg", why: "names of the C library's functions that threads begin in" };
const PERF: Package = Package { name: "linux-perf", why: "perf: the profiler that is compared with" };

const GCC_PACKAGES: &[Package] =
    &[PERF, LIBC_DEBUG, Package { name: "g++", why: "the compiler whose stacks are compared" }];
const RUSTC_PACKAGES: &[Package] = &[PERF, LIBC_DEBUG];
const POSTGRES_PACKAGES: &[Package] = &[
    PERF,
    LIBC_DEBUG,
    Package { name: "postgresql", why: "the database whose stacks are compared, and its load" },
    Package { name: "util-linux", why: "setpriv: the database does not run as root" },
];
const REDIS_PACKAGES: &[Package] = &[
    PERF,
    LIBC_DEBUG,
    Package { name: "redis-server", why: "the server whose stacks are compared" },
    Package { name: "redis-tools", why: "redis-benchmark: its load" },
];

impl Program {
    /// Installs what it takes.
    pub(crate) fn install(self, may_install: bool) -> Result<()> {
        if !packages::is_debian() {
            eprintln!("not Debian: perf and the program have to be there");
            return Ok(());
        }
        packages::ensure(
            match self {
                Self::Gcc => GCC_PACKAGES,
                Self::Rustc => RUSTC_PACKAGES,
                Self::Postgres => POSTGRES_PACKAGES,
                Self::Redis => REDIS_PACKAGES,
            },
            may_install,
        )
    }

    /// The name of the processes that are compared.
    pub(crate) fn comm(self) -> &'static str {
        match self {
            Self::Gcc => "cc1plus",
            Self::Rustc => "rustc",
            Self::Postgres => "postgres",
            Self::Redis => "redis-server",
        }
    }

    /// Starts the program and its load, with all files in `directory`. They run until what is returned is dropped.
    pub(crate) fn start(self, directory: &Path) -> Result<Vec<ProcessGroup>> {
        match self {
            Self::Gcc => repeat(directory, "source.cc", CPP, "g++ -O2 -c -o /dev/null \"$0\""),
            Self::Rustc => {
                let options = "--edition=2021 --crate-type=lib -O -o \"$0.rlib\"";
                repeat(directory, "source.rs", &generated_rust(60), &format!("rustc {options} \"$0\""))
            }
            Self::Postgres => postgres(directory),
            Self::Redis => redis(directory),
        }
    }
}

/// Templates to instantiate, loops to optimise; most of the work is the standard library's headers.
const CPP: &str = "\
#include <bits/stdc++.h>
using namespace std;
int main() {
    map<string, vector<int>> table;
    regex pattern(\"(a+)(b|c)*\");
    sort(table[\"x\"].begin(), table[\"x\"].end());
    unordered_map<string, deque<double>> other;
    other[\"y\"].push_back(accumulate(table[\"x\"].begin(), table[\"x\"].end(), 0.0));
    return regex_match(string(\"aab\"), pattern) + other.size();
}
";

/// Generic code that is instantiated for `types` types.
fn generated_rust(types: usize) -> String {
    let mut code = String::from("use std::collections::{BTreeMap, HashMap};\n");
    for number in 0..types {
        // Writing to a string does not fail.
        let _ = writeln!(
            code,
            "#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]\n\
             pub struct T{number} {{ a: [u32; {}], b: String, c: Option<Vec<u64>> }}\n\
             pub fn f{number}(values: &[T{number}]) -> BTreeMap<String, Vec<T{number}>> {{\n\
             \x20   let mut seen: HashMap<&T{number}, usize> = HashMap::new();\n\
             \x20   for value in values {{ *seen.entry(value).or_default() += value.a.len(); }}\n\
             \x20   let mut sorted: Vec<_> = seen.into_iter().filter(|(_, n)| n % 2 == {}).collect();\n\
             \x20   sorted.sort();\n\
             \x20   let mut table: BTreeMap<String, Vec<T{number}>> = BTreeMap::new();\n\
             \x20   for (value, n) in sorted {{\n\
             \x20       table.entry(format!(\"{{n}}{{value:?}}\")).or_default().push(value.clone());\n\
             \x20   }}\n\
             \x20   table\n\
             }}",
            number + 1,
            number % 2
        );
    }
    code
}

/// Runs the shell command `script` again and again; it finds the file `name` with `content` as `$0`.
fn repeat(directory: &Path, name: &str, content: &str, script: &str) -> Result<Vec<ProcessGroup>> {
    let file = directory.join(name);
    fs::write(&file, content)?;
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("while :; do {script} || sleep 1; done")]).arg(&file).env("TMPDIR", directory);
    Ok(vec![ProcessGroup::start(&mut shell)?])
}

fn postgres(directory: &Path) -> Result<Vec<ProcessGroup>> {
    let user = User::from_name(POSTGRES_USER)?.context("there is no user `postgres`")?;
    let home = directory.join("postgres");
    fs::create_dir(&home)?;
    chown(&home, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    // The server has to reach its data through the temporary directory.
    let mut open = Command::new("chmod");
    command::run(open.arg("o+x").arg(directory))?;
    let programs = newest_postgres()?;
    let run = |name: &str| {
        let mut run = Command::new("setpriv");
        run.args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid), "--clear-groups".into()]);
        run.arg("--").arg(programs.join(name)).current_dir(&home);
        run
    };
    let data = home.join("data");
    quietly(run("initdb").arg("--pgdata").arg(&data).args(["--auth=trust", "--no-sync"]))?;
    let mut server = run("postgres");
    server.arg("-D").arg(&data).arg("-k").arg(&home);
    let server = ProcessGroup::start(server.args(["-c", "listen_addresses=", "-c", "fsync=off"]))?;
    await_success(|| {
        let mut ready = run("pg_isready");
        ready.arg("--host").arg(&home);
        ready
    })?;
    let bench = || {
        let mut bench = run("pgbench");
        bench.arg("--host").arg(&home).arg(format!("--username={POSTGRES_USER}"));
        bench
    };
    quietly(bench().args(["--initialize", "--scale=5", "postgres"]))?;
    let load = ProcessGroup::start(bench().args(["--client=4", "--time=86400", "postgres"]))?;
    // In this order: the load ends first.
    Ok(vec![load, server])
}

fn newest_postgres() -> Result<PathBuf> {
    let versions = fs::read_dir(POSTGRES).with_context(|| format!("cannot read {POSTGRES}"))?;
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = versions.filter_map(|entry| Some(entry.ok()?.path()));
    let newest = versions.filter(|path| path.join("bin/postgres").exists()).max_by_key(number);
    Ok(newest.with_context(|| format!("no PostgreSQL server in {POSTGRES}"))?.join("bin"))
}

fn redis(directory: &Path) -> Result<Vec<ProcessGroup>> {
    let socket = directory.join("redis.sock");
    let mut server = Command::new("redis-server");
    server.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
    let server = ProcessGroup::start(server.arg("--dir").arg(directory))?;
    await_success(|| {
        let mut ping = Command::new("redis-cli");
        ping.arg("-s").arg(&socket).arg("ping");
        ping
    })?;
    let mut load = Command::new("redis-benchmark");
    load.arg("-s").arg(&socket).args(["-q", "-l", "-n", "100000", "-r", "100000", "-P", "8"]);
    let load = ProcessGroup::start(load.args(["-t", "set,get,lpush,lrange_100,zadd,sadd,hset"]))?;
    Ok(vec![load, server])
}

fn quietly(run: &mut Command) -> Result<()> {
    ensure!(command::query(run)?.is_some(), "`{}` failed", command::line(run));
    Ok(())
}

fn await_success(mut attempt: impl FnMut() -> Command) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while command::query(&mut attempt())?.is_none() {
        if Instant::now() > deadline {
            bail!("`{}` did not succeed within {} s", command::line(&attempt()), PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generated Rust has a type and a function of its own for each number.
    #[test]
    fn generated_rust_has_all_types() {
        let code = generated_rust(3);
        assert_eq!((code.matches("pub struct T").count(), code.matches("pub fn f").count()), (3, 3));
        assert!(code.contains("[u32; 3]"));
    }

    /// Every program's packages include perf, and say why each is needed.
    #[test]
    fn packages_have_reasons() {
        for packages in [GCC_PACKAGES, RUSTC_PACKAGES, POSTGRES_PACKAGES, REDIS_PACKAGES] {
            assert!(packages.iter().any(|package| package.name == "linux-perf"));
            assert!(packages.iter().all(|package| !package.why.is_empty()));
        }
    }
}
