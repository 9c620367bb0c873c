//! Folded stacks: one line a distinct stack, `comm;root;…;leaf VALUE`, root first.
//!
//! The input format of Brendan Gregg's FlameGraph, of inferno and of speedscope
//! (<https://github.com/brendangregg/FlameGraph#2-fold-stacks>).

use std::io::{self, Write};

use super::stacks;
use crate::profile::model::Profile;

/// Writes the value at `value_index` of every stack, in the unit of that sample type. Equal stacks are
/// merged, lines are sorted bytewise. See `stacks::by_stack` for what the frames are.
pub fn write(profile: &Profile, value_index: usize, out: &mut dyn Write) -> io::Result<()> {
    let mut lines = lines(profile, value_index);
    lines.sort_unstable();
    for line in lines {
        out.write_all(line.as_bytes())?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// The lines, without their ends, such that callees follow their callers.
pub(super) fn lines(profile: &Profile, value_index: usize) -> Vec<String> {
    stacks::by_stack(profile, value_index)
        .iter()
        .map(|(key, value)| {
            let mut line = String::with_capacity(key.len() + 12);
            for frame in stacks::frames(key) {
                if !line.is_empty() {
                    line.push(';');
                }
                line.push_str(frame);
            }
            line.push(' ');
            line.push_str(&value.to_string());
            line
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::example;

    fn folded(profile: &Profile, value_index: usize) -> String {
        let mut out = Vec::new();
        write(profile, value_index, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Root first, inlined functions below their callers, kernel and inlined frames marked, threads and
    /// truncation where they are known, hostile names disarmed, lines sorted.
    #[test]
    fn the_example_folds() {
        assert_eq!(
            folded(&example::profile(), 0),
            "app;main;app::walk;app::hash_[i] 3\n\
             app;main;app::walk;app::walk 3\n\
             app;main;libc.so.6+0x1f00 1\n\
             app;main;vfs_read_[k] 1\n\
             app;worker_1;main;app::walk;app::walk;app::hash_[i] 1\n\
             sh: evil;[truncated: depth];[unknown] 1\n"
        );
    }

    /// Values are those of the sample type asked for, and none is lost.
    #[test]
    fn values_add_up() {
        let total: i64 = folded(&example::profile(), 1)
            .lines()
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<i64>().unwrap())
            .sum();
        assert_eq!(total, 10 * example::PERIOD);
    }

    /// Stacks that differ only by process id are one line.
    #[test]
    fn equal_stacks_are_merged() {
        let mut profile = example::profile();
        let mut twin = profile.samples[0].clone();
        twin.labels.pid = 99;
        profile.samples.push(twin);
        let text = folded(&profile, 0);
        assert!(text.contains("app;main;app::walk;app::walk 6\n"), "{text}");
        assert_eq!(text.lines().count(), 6);
    }

    /// A profile without samples has no lines.
    #[test]
    fn nothing_folds_to_nothing() {
        assert_eq!(folded(&example::empty(), 0), "");
    }
}
