//! `cargo xtask compare-perf`: the agent and perf on the same machine in the same recording.

pub(crate) mod aliases;
pub(crate) mod leaf;
mod perf_script;
pub(crate) mod recording;
pub(crate) mod verdict;

use std::collections::HashSet;

use anyhow::{Result, ensure};
use clap::Args;
use nix::unistd::Uid;

use crate::disagreement::Disagreement;
use crate::packages::{self, Package};
use crate::workload::Workload;
use crate::{agent_run, command, seconds};
use leaf::{Leaf, Tally};
use recording::Recording;
use verdict::Row;

/// Functions of each profile that are compared.
const TOP: usize = 10;

const PACKAGES: &[Package] = &[
    Package { name: "linux-perf", why: "perf: the profiler that is compared with" },
    Package { name: "gcc", why: "compiles, as part of the workload" },
    Package { name: "libc6-dev", why: "what gcc needs to compile" },
];

/// Profile with the agent and with perf in the same window, and compare the top ten functions.
///
/// Builds the release agent, starts a workload (a compiler, loops in C and Python, a compression, a checksum), runs
/// `perf record -F 99 -a -e cpu-clock` and in it `agent --once`, and prints the leaf functions that are in the top ten
/// of either, with counts and shares. perf's samples from outside the agent's window do not count, nor do those of the
/// profilers themselves. Both are samples of the same truth: with n1 and n2 samples, shares p1
/// and p2 and p the share in both together, a function agrees if
/// |p1-p2| <= z*sqrt(p(1-p)(1/n1+1/n2)). z is 3 for one comparison and wider for m of them, so that the chance of any
/// false alarm stays that of one (Bonferroni: 3.64 for ten). Exit status 4 if a function disagrees.
///
/// Needs root and perf: `sudo -E env PATH=$PATH cargo xtask compare-perf`.
#[derive(Args)]
pub(crate) struct Options {
    /// Length of the window in seconds
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = seconds::parse)]
    duration: f64,
    /// Compare the samples of this process only, and start no workload
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Install nothing, even if perf is missing
    #[arg(long)]
    no_install: bool,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        Uid::effective().is_root(),
        "profiling needs root: sudo -E env PATH=$PATH cargo xtask compare-perf"
    );
    find_perf(!options.no_install)?;
    let agent = agent_run::build()?;
    let directory = tempfile::tempdir()?;
    let workload = match options.pid {
        None => Some(Workload::mixed(directory.path())?),
        Some(_) => None,
    };
    match (&workload, options.pid) {
        (Some(workload), _) => println!("workload: {}", workload.description),
        (None, pid) => println!("process: {}", pid.unwrap_or_default()),
    }
    let mut recording = recording::record(&agent, directory.path(), options.duration, options.pid)?;
    drop(workload);
    merge_aliases(&mut recording);
    let unmatched = give_up_names(&mut recording);
    let rows = verdict::rows([&recording.perf, &recording.agent], TOP);
    ensure!(!rows.is_empty(), "one of the profiles is empty: is anything running?");
    let bound = verdict::bound(rows.len());
    print(&recording, &rows, bound);
    for (profiler, names) in ["perf", "the agent"].into_iter().zip(&unmatched) {
        print_unmatched(profiler, names);
    }
    judge(&rows, bound)
}

pub(crate) fn find_perf(may_install: bool) -> Result<()> {
    if command::find_in_path("perf").is_some() {
        return Ok(());
    }
    ensure!(packages::is_debian(), "perf is missing: install it (linux-tools, perf or linux-perf)");
    packages::ensure(PACKAGES, may_install)
}

fn merge_aliases(recording: &mut Recording) {
    let rows = verdict::rows([&recording.perf, &recording.agent], TOP);
    let aliases = aliases::find([&recording.perf, &recording.agent], &modules(&rows));
    for tally in [&mut recording.perf, &mut recording.agent] {
        *tally = leaf::merge_aliases(std::mem::take(tally), &aliases);
    }
}

/// In modules with functions that would disagree, see [`leaf::forget_names_unknown_to`]: from both sides, so that it
/// does not matter who has the names. Returns what joined on each side.
fn give_up_names(recording: &mut Recording) -> [Tally; 2] {
    let mut rows = verdict::rows([&recording.perf, &recording.agent], TOP);
    let bound = verdict::bound(rows.len());
    rows.retain(|row| row.deviation > bound);
    let modules = modules(&rows);
    let perf = recording.perf.clone();
    let unmatched = leaf::forget_names_unknown_to(&recording.agent, &mut recording.perf, &modules);
    [unmatched, leaf::forget_names_unknown_to(&perf, &mut recording.agent, &modules)]
}

fn modules(rows: &[Row<Leaf>]) -> HashSet<&str> {
    rows.iter().map(|row| &*row.key.module).collect()
}

fn print(recording: &Recording, rows: &[Row<Leaf>], bound: f64) {
    let totals = [&recording.perf, &recording.agent].map(|tally| tally.values().sum::<u64>());
    println!("samples without the profilers and the idle loop: perf {}, agent {}", totals[0], totals[1]);
    println!(
        "the agent's books, with these: expected {}, emitted {}\n",
        recording.expected, recording.emitted
    );
    println!("{:^16}  {:^16}  {:>5}", "perf", "agent", "|p1-p2|");
    println!(
        "{:>7} {:>8}  {:>7} {:>8}  {:>7}  FUNCTION  MODULE",
        "SAMPLES", "SHARE", "SAMPLES", "SHARE", "IN σ"
    );
    for Row { key: leaf, counts, shares, deviation } in rows {
        let [perf, agent] = shares.map(|share| 100.0 * share);
        let mark = if *deviation > bound { "  <- DISAGREES" } else { "" };
        println!(
            "{:>7} {perf:>6.2} %  {:>7} {agent:>6.2} %  {deviation:>7.2}  {leaf}{mark}",
            counts[0], counts[1]
        );
    }
    println!("\nallowed: {bound:.2} σ (3 σ for one comparison, corrected for {}; Bonferroni)", rows.len());
}

fn print_unmatched(profiler: &str, names: &Tally) {
    const SHOWN: usize = 5;
    if names.is_empty() {
        return;
    }
    let samples: u64 = names.values().sum();
    println!("{samples} samples with names that {profiler} alone knows count as [no name], such as:");
    for leaf in verdict::most_frequent(names, SHOWN) {
        println!("{:>7}  {leaf}", names[leaf]);
    }
}

fn judge(rows: &[Row<Leaf>], bound: f64) -> Result<()> {
    let disagree = rows.iter().filter(|row| row.deviation > bound).count();
    if disagree == 0 {
        println!("perf and the agent agree on all {} functions", rows.len());
        return Ok(());
    }
    let verdict = format!(
        "perf and the agent disagree on {disagree} of {} functions. By chance that happens once in 370 runs. Known \
         reasons:\n  \
         - a load that began or ended inside the recording: the two windows are some 0.1 s apart\n  \
         - two names of one address, or sources of names that only one has (perf maps, debug files)\n  \
         - files replaced while they ran: perf reads names after the window, the agent during it\n  \
         Run again; a function that disagrees twice is a defect of the agent or of this comparison",
        rows.len()
    );
    Err(Disagreement(verdict).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(perf: &[(&str, u64)], agent: &[(&str, u64)]) -> Recording {
        let tally = |counts: &[(&str, u64)]| {
            let leaf = |name: &str| Leaf::new((!name.is_empty()).then_some(name), Some("/m"));
            counts.iter().map(|(name, count)| (leaf(name), *count)).collect()
        };
        Recording { perf: tally(perf), agent: tally(agent), expected: 0, emitted: 0 }
    }

    fn verdict_on(recording: &mut Recording) -> Result<()> {
        give_up_names(recording);
        let rows = verdict::rows([&recording.perf, &recording.agent], TOP);
        judge(&rows, verdict::bound(rows.len()))
    }

    /// Shares within the bound agree; a function with half its share, or under another name, is a failure.
    #[test]
    fn disagreement_is_a_failure() {
        let perf = [("a", 500), ("b", 300), ("c", 200)];
        verdict_on(&mut recorded(&perf, &[("a", 510), ("b", 310), ("c", 180)])).unwrap();
        let halved = verdict_on(&mut recorded(&perf, &[("a", 600), ("b", 300), ("c", 100)]));
        assert!(halved.unwrap_err().to_string().contains("disagree on 2 of 3"));
        let renamed = verdict_on(&mut recorded(&perf, &[("a", 500), ("b", 300), ("wrong", 200)]));
        assert!(renamed.unwrap_err().to_string().contains("disagree on 2 of 4"));
    }

    /// A source of names that one profiler lacks is no disagreement while the module's samples are the same.
    #[test]
    fn missing_names_are_no_disagreement() {
        let perf = [("exported", 500), ("static", 300), ("", 200)];
        verdict_on(&mut recorded(&perf, &[("exported", 505), ("", 495)])).unwrap();
        let fewer = verdict_on(&mut recorded(&perf, &[("exported", 700), ("", 300)]));
        assert!(fewer.unwrap_err().to_string().contains("disagree on 2 of 2"));
    }
}
