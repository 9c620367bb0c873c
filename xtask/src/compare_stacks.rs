//! `cargo xtask compare-stacks`: whole stacks of a real program, by the agent and by `perf record --call-graph dwarf`.

mod agreement;
mod ending;
mod perf_script;
mod program;
mod recording;
mod stacks;

use anyhow::{Result, ensure};
use clap::Args;
use nix::unistd::Uid;

use crate::compare_perf::leaf::{Leaf, Tally};
use crate::compare_perf::verdict;
use crate::disagreement::Disagreement;
use crate::{agent_run, seconds};
use agreement::Row;
use ending::Ending;
use program::Program;
use recording::Recording;
use stacks::Stacks;

/// Call paths of each profile that are compared.
const TOP: usize = 20;
/// The largest stack dump that perf takes: a record's length has 16 bits.
const LARGEST_DUMP: u32 = 65_528;
/// Bytes of a printed call path.
const WIDTH: usize = 120;

/// Compare whole stacks of a real program with those of `perf record --call-graph dwarf` in the same window.
///
/// Builds the release agent, starts each program under load, runs `perf record -F 99 -a -e cpu-clock --call-graph dwarf`
/// and in it `agent --once`, and asks both profilers' user stacks of the program's processes the same two questions.
///
/// How many of the samples that fired have a whole stack? A stack is whole if its outermost function is one that a
/// process or a thread begins in: `_start`, `__libc_start_main`, `clone3` and the like; a frame without a name is looked up in the
/// file and its debug file, for both. Samples that fired are those that are there and those that were lost: the agent's by its
/// books, perf's by the kernel's LOST records. Nobody knows whose samples were lost: the program gets its share. The agent's
/// share of whole stacks must not be less than perf's by more than chance.
///
/// Do the top twenty call paths agree? A path is all user functions from the program's first one to the leaf, without inlined
/// ones. So are the twenty largest boxes of a flame graph: beginnings of paths with all that is called from there. A sample whose
/// stack is cut or lost may belong to any path that it could be the inner end of; each profiler gets that much room, and it is
/// printed. Bounds are those of compare-perf: 3 σ of both samples together, corrected for the number of comparisons.
///
/// perf gets its best: the largest stack dump, a ring of 64 MiB a CPU, depth 1024. Exit status 4 if a share or a path disagrees.
///
/// Needs root and perf: `sudo -E env PATH=$PATH cargo xtask compare-stacks`.
#[derive(Args)]
pub(crate) struct Options {
    /// Programs to profile, one after the other
    #[arg(value_name = "PROGRAM", default_values = ["gcc", "postgres"])]
    programs: Vec<Program>,
    /// Length of each window in seconds
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = seconds::parse)]
    duration: f64,
    /// Bytes of stack that perf copies with each sample
    #[arg(long, value_name = "BYTES", default_value_t = LARGEST_DUMP)]
    stack_dump: u32,
    /// Install nothing, even if something is missing
    #[arg(long)]
    no_install: bool,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        Uid::effective().is_root(),
        "profiling needs root: sudo -E env PATH=$PATH cargo xtask compare-stacks"
    );
    for program in &options.programs {
        program.install(!options.no_install)?;
    }
    let agent = agent_run::build()?;
    let mut verdicts = Vec::new();
    for program in &options.programs {
        let directory = tempfile::tempdir()?;
        let running = program.start(directory.path())?;
        let comm = program.comm();
        let mut recording =
            recording::record(&agent, directory.path(), options.duration, comm, options.stack_dump)?;
        drop(running);
        println!("\n{comm}, {} s, perf's stack dump {} bytes", options.duration, options.stack_dump);
        verdicts.extend(compare(&mut recording)?.into_iter().map(|verdict| format!("{comm}: {verdict}")));
    }
    if verdicts.is_empty() {
        println!("\nwhole stacks and call paths agree");
        return Ok(());
    }
    Err(Disagreement(format!("{}\nBy chance that happens once in 370 runs", verdicts.join("\n"))).into())
}

/// Prints the comparison; what does not agree.
fn compare(recording: &mut Recording) -> Result<Vec<String>> {
    let endings = [&recording.perf, &recording.agent].map(Shares::of);
    ensure!(
        endings.iter().all(|shares| shares.fired > 0),
        "one of the profiles is empty: does the program run?"
    );
    print_endings(recording, &endings);
    for (profiler, side) in [("perf", &recording.perf), ("the agent", &recording.agent)] {
        print_cuts(profiler, &side.cuts());
    }
    stacks::reconcile([&mut recording.perf, &mut recording.agent]);
    let sides = [&recording.perf, &recording.agent];
    let (paths, boxes) = (agreement::whole_paths(sides, TOP), agreement::boxes(sides, TOP));
    // The share of whole stacks is a comparison too.
    let bound = verdict::bound(paths.len() + boxes.len() + 1);
    print_rows("call paths", &paths, sides, bound);
    print_rows("boxes of the flame graph (with all that is called from there)", &boxes, sides, bound);
    println!(
        "allowed: {bound:.2} σ (3 σ for one comparison, corrected for {}; Bonferroni)",
        paths.len() + boxes.len() + 1
    );
    let mut verdicts: Vec<String> = endings_verdict(&endings, bound).into_iter().collect();
    for (what, rows) in [("call paths", &paths), ("boxes", &boxes)] {
        let disagree = rows.iter().filter(|row| row.deviation > bound).count();
        if disagree > 0 {
            verdicts.push(format!("perf and the agent disagree on {disagree} of {} {what}", rows.len()));
        }
    }
    Ok(verdicts)
}

/// Samples by how their stacks end.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shares {
    fired: u64,
    whole: u64,
}

impl Shares {
    fn of(side: &Stacks) -> Self {
        Self { fired: side.fired(), whole: side.ending(Ending::Whole) }
    }

    fn share(self) -> f64 {
        self.whole as f64 / self.fired as f64
    }
}

/// What is to be said if the agent has a smaller share of whole stacks than perf, beyond chance.
fn endings_verdict([perf, agent]: &[Shares; 2], bound: f64) -> Option<String> {
    let deviation = verdict::deviation([perf.whole, agent.whole], [perf.fired, agent.fired]);
    (agent.share() < perf.share() && deviation > bound).then(|| {
        let [perf, agent] = [perf, agent].map(|shares| 100.0 * shares.share());
        format!("perf has {perf:.2} % whole stacks, the agent {agent:.2} % ({deviation:.2} σ less)")
    })
}

fn print_endings(recording: &Recording, endings: &[Shares; 2]) {
    println!(
        "{:<10} {:>7} {:>16} {:>16} {:>16} {:>16}",
        "", "FIRED", "WHOLE", "CUT", "NO USER STACK", "LOST"
    );
    for (profiler, side) in [("perf", &recording.perf), ("agent", &recording.agent)] {
        let column = |count: u64| format!("{count} {:>6.2} %", 100.0 * count as f64 / side.fired() as f64);
        let [whole, cut, none] =
            [Ending::Whole, Ending::Cut, Ending::NoStack].map(|ending| column(side.ending(ending)));
        println!(
            "{profiler:<10} {:>7} {whole:>16} {cut:>16} {none:>16} {:>16}",
            side.fired(),
            column(side.lost)
        );
    }
    let [perf, agent] = endings.map(Shares::share);
    let deviation =
        verdict::deviation(endings.map(|shares| shares.whole), endings.map(|shares| shares.fired));
    println!("whole: the agent {:+.2} percentage points, {deviation:.2} σ", 100.0 * (agent - perf));
    let lost: Vec<_> = recording.agent_lost.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
    println!(
        "the agent's losses on the whole machine: [{}]; it marks {} stacks as cut",
        lost.join(", "),
        recording.marked
    );
}

fn print_cuts(profiler: &str, cuts: &Tally) {
    const SHOWN: usize = 8;
    if cuts.is_empty() {
        return;
    }
    println!("stacks of {profiler} that are cut end in:");
    for outermost in verdict::most_frequent(cuts, SHOWN) {
        println!("{:>7}  {outermost}", cuts[outermost]);
    }
}

fn print_rows(what: &str, rows: &[Row], sides: [&Stacks; 2], bound: f64) {
    println!("\ntop {TOP} {what}, samples and those of cut or lost stacks that may be such");
    println!("{:>14} {:>8}  {:>14} {:>8}  {:>7}  PATH, OUTERMOST FIRST", "PERF", "", "AGENT", "", "|p1-p2|");
    for row in rows {
        let cell = |side: usize| {
            let share = 100.0 * row.counts[side] as f64 / sides[side].fired() as f64;
            (format!("{} +{}", row.counts[side], row.maybe[side]), share)
        };
        let ((perf, perf_share), (agent, agent_share)) = (cell(0), cell(1));
        let (mark, width) = if row.deviation > bound { ("DISAGREES: ", usize::MAX) } else { ("", WIDTH) };
        println!(
            "{perf:>14} {perf_share:>6.2} %  {agent:>14} {agent_share:>6.2} %  {:>5.2} σ  {mark}{}",
            row.deviation,
            shown(&row.path, width)
        );
    }
}

/// A path in `width` bytes: its inner end, which tells paths apart.
fn shown(path: &[Leaf], width: usize) -> String {
    if path.is_empty() {
        return "[no user stack]".to_owned();
    }
    let name = |frame: &Leaf| match &frame.symbol {
        Some(name) => name.clone(),
        None => format!("[{}]", frame.module.rsplit('/').next().unwrap_or_default()),
    };
    let mut text = String::new();
    for (index, frame) in path.iter().enumerate().rev() {
        let name = name(frame);
        if !text.is_empty() && text.len().saturating_add(name.len()) > width {
            return format!("({}) … ; {text}", index + 1);
        }
        text = if text.is_empty() { name } else { format!("{name} ; {text}") };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::stacks::Stack;
    use super::*;

    fn frame(name: &str) -> Leaf {
        Leaf::new((!name.is_empty()).then_some(name), Some("/bin/app"))
    }

    fn side(stacks: &[(&[&str], Ending, u64)]) -> Stacks {
        let stack = |(names, ending, count): &(&[&str], Ending, u64)| Stack {
            frames: names.iter().map(|name| frame(name)).collect(),
            ending: *ending,
            count: *count,
        };
        Stacks { stacks: stacks.iter().map(stack).collect(), lost: 0 }
    }

    fn verdicts(perf: Stacks, agent: Stacks) -> Vec<String> {
        compare(&mut Recording { perf, agent, ..Recording::default() }).unwrap()
    }

    const WHOLE: (&[&str], Ending, u64) = (&["_start", "main", "f"], Ending::Whole, 900);

    /// A smaller share of whole stacks is a verdict against the agent and not against perf, and one within chance is none.
    #[test]
    fn fewer_whole_stacks_are_a_verdict() {
        let whole = || side(&[WHOLE, (&["_start", "main", "g"], Ending::Whole, 100)]);
        let cut = || side(&[WHOLE, (&["g"], Ending::Cut, 100)]);
        let found = verdicts(whole(), cut());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("perf has 100.00 % whole stacks, the agent 90.00 %"), "{found:?}");
        assert_eq!(verdicts(cut(), whole()), [""; 0]);
        let one = side(&[WHOLE, (&["_start", "main", "g"], Ending::Whole, 99), (&["g"], Ending::Cut, 1)]);
        assert_eq!(verdicts(whole(), one), [""; 0]);
    }

    /// Another caller is a verdict, in whole paths and in boxes, though every stack is whole.
    #[test]
    fn another_path_is_a_verdict() {
        let through = |caller| side(&[WHOLE, (&["_start", "main", caller, "g"], Ending::Whole, 100)]);
        assert_eq!(verdicts(through("a"), through("a")), [""; 0]);
        let found = verdicts(through("a"), through("b"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("disagree on 2 of 3 call paths"), "{found:?}");
    }

    /// Long paths are shown by their inner end, with the number of functions that are left out; frames without a name by module.
    #[test]
    fn paths_are_shown_by_their_end() {
        let path: Vec<_> = ["main", "middle", "", "leaf"].map(frame).into();
        assert_eq!(shown(&path, 100), "main ; middle ; [app] ; leaf");
        assert_eq!(shown(&path, 12), "(2) … ; [app] ; leaf");
        assert_eq!(shown(&[], 12), "[no user stack]");
    }
}
