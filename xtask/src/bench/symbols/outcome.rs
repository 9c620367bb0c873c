//! What the benchmark prints, and the two tools beside each other.

use std::path::Path;

/// The ratio of times that warm names are not to exceed.
const WARM_NAMES_AIM: f64 = 0.5;
const MEBIBYTE: f64 = 1_048_576.0;

/// One run of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outcome {
    /// Nanoseconds to the first name.
    pub(super) cold: f64,
    /// Nanoseconds for [`asked`](Self::asked) addresses.
    pub(super) warm: f64,
    /// Nanoseconds of CPU time for them.
    pub(super) cpu: f64,
    pub(super) asked: f64,
    /// Of these, those that have a name.
    pub(super) named: f64,
    /// Functions of all of them, inlined ones among them.
    pub(super) frames: f64,
    /// Peak bytes of resident memory.
    pub(super) resident: f64,
    /// Peak bytes of heap, where they were counted.
    pub(super) heap: f64,
}

/// What a tool made of one file in one mode.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) timed: Vec<Outcome>,
    /// Peak bytes of heap.
    pub(super) heap: Option<f64>,
}

impl Outcome {
    /// The line that the benchmark prints.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let numbers: Option<Vec<f64>> = line.split('\t').map(|word| word.parse().ok()).collect();
        let &[cold, warm, cpu, asked, named, frames, resident, heap] = numbers?.as_slice() else {
            return None;
        };
        Some(Self { cold, warm, cpu, asked, named, frames, resident, heap })
    }
}

impl Side {
    /// The best of all turns.
    fn least(&self, value: impl Fn(&Outcome) -> f64) -> f64 {
        self.timed.iter().map(value).fold(f64::INFINITY, f64::min)
    }

    fn one(&self, value: impl Fn(&Outcome) -> f64) -> f64 {
        self.timed.first().map_or(f64::NAN, value)
    }
}

/// The rows of a table: what was measured, ours, theirs, ours ÷ theirs.
pub(super) fn rows(file: &Path, mode: &str, ours: &Side, theirs: &Side) -> Vec<String> {
    let name: String = file.file_name().unwrap_or_default().to_string_lossy().chars().take(24).collect();
    let row = |what: &str, value: &dyn Fn(&Side) -> f64| {
        let (ours, theirs) = (value(ours), value(theirs));
        format!("{what:<58} {ours:>10.1} {theirs:>10.1} {:>9.2}", ours / theirs)
    };
    let warm = |side: &Side| side.least(|run| run.warm);
    let ratio = warm(ours) / warm(theirs);
    let verdict = match mode {
        "names" if ratio > WARM_NAMES_AIM => format!("  <= {WARM_NAMES_AIM}: MISSED"),
        "names" => format!("  <= {WARM_NAMES_AIM}"),
        _ => String::new(),
    };
    vec![
        row(&format!("{name}, {mode}: first name (ms)"), &|side| side.least(|run| run.cold) / 1e6),
        row("  warm addresses, each (µs)", &|side| side.least(|run| run.warm / run.asked) / 1e3) + &verdict,
        row("  CPU time of these, each (µs)", &|side| side.least(|run| run.cpu / run.asked) / 1e3),
        row("  warm addresses a second (thousands)", &|side| 1e6 / side.least(|run| run.warm / run.asked)),
        row("  of these, have a name (%)", &|side| side.one(|run| 100.0 * run.named / run.asked)),
        row("  functions an address, inlined ones included", &|side| side.one(|run| run.frames / run.asked)),
        row("  peak memory, resident (MiB)", &|side| side.least(|run| run.resident) / MEBIBYTE),
        row("  peak memory, heap (MiB)", &|side| side.heap.unwrap_or(f64::NAN) / MEBIBYTE),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(warm: [f64; 2]) -> Side {
        let run = |warm| Outcome {
            cold: 2e6,
            warm,
            cpu: warm,
            asked: 10.0,
            named: 9.0,
            frames: 20.0,
            resident: 1e6,
            heap: 0.0,
        };
        Side { timed: warm.map(run).into(), heap: Some(MEBIBYTE) }
    }

    /// The line that the benchmark prints; nothing shorter or longer.
    #[test]
    fn figures_are_parsed() {
        let parsed = Outcome::parse("1\t2\t2.5\t3\t4\t5\t6\t7");
        let expected = Outcome {
            cold: 1.0,
            warm: 2.0,
            cpu: 2.5,
            asked: 3.0,
            named: 4.0,
            frames: 5.0,
            resident: 6.0,
            heap: 7.0,
        };
        assert_eq!(parsed, Some(expected));
        assert_eq!(Outcome::parse("1\t2\t2.5\t3\t4\t5\t6"), None);
        assert_eq!(Outcome::parse("1\t2\t2.5\t3\t4\t5\t6\tseven"), None);
    }

    /// The best of all turns counts for both; the aim holds for names, and is missed when the ratio passes it.
    #[test]
    fn the_best_turns_are_compared() {
        let rows = |mode, ours, theirs| rows(Path::new("/lib/libc.so.6"), mode, &side(ours), &side(theirs));
        let missed = rows("names", [6e4, 9e4], [1e5, 8e4]);
        assert!(missed[0].starts_with("libc.so.6, names: first name (ms)"));
        assert!(missed[1].ends_with("6.0        8.0      0.75  <= 0.5: MISSED"), "{}", missed[1]);
        assert!(rows("names", [9e4, 3e4], [1e5, 1e5])[1].ends_with("0.30  <= 0.5"));
        assert!(rows("lines", [9e4, 9e4], [1e5, 1e5])[1].ends_with("0.90"));
    }
}
