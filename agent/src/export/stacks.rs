//! Stacks as text, from the root down: what folded lines and flame graphs are made of.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::printable::printable;
use crate::profile::model::{FrameKind, Labels, Location, Profile, Sample};

/// Between the frames of a key of [`by_stack`]. No name contains it, and it sorts before all that names
/// contain, so that a frame's callees always follow the frame itself.
const SEPARATOR: char = '\0';

/// One value summed over equal stacks. A key is the stack's frames from the root to the leaf; [`frames`]
/// splits it.
///
/// The frames are: the process's name; the thread's name, where the profile was taken per thread;
/// `[truncated: cause]` where the stack is cut short; then the functions, inlined ones below those they are
/// inlined into.
///
/// Annotations are those of perf and the flame graph tools: `_[k]` kernel, `_[i]` inlined. Stacks whose sum
/// is not positive are left out.
pub(super) fn by_stack(profile: &Profile, value_index: usize) -> BTreeMap<String, i64> {
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    for sample in &profile.samples {
        let sum = sums.entry(key_of(profile, sample)).or_default();
        *sum = sum.saturating_add(sample.value(value_index));
    }
    sums.retain(|_, sum| *sum > 0);
    sums
}

/// The frames of a key of [`by_stack`], root first.
pub(super) fn frames(key: &str) -> impl Iterator<Item = &str> {
    key.split(SEPARATOR)
}

fn key_of(profile: &Profile, sample: &Sample) -> String {
    let mut key = String::new();
    push_task(&mut key, &sample.labels);
    for location in sample.locations.iter().rev().filter_map(|&index| profile.locations.get(index)) {
        push_location(&mut key, profile, location);
    }
    key
}

fn push_task(key: &mut String, labels: &Labels) {
    push(key, &labels.comm, "");
    if let Some(thread) = &labels.thread {
        push(key, &thread.name, "");
    }
    if let Some(cause) = labels.truncated {
        push(key, &format!("[truncated: {cause}]"), "");
    }
}

/// The model has the innermost inlined function first; here the outermost comes first.
fn push_location(key: &mut String, profile: &Profile, location: &Location) {
    let outermost = location.lines.len().saturating_sub(1);
    for (index, line) in location.lines.iter().enumerate().rev() {
        let name = profile.functions.get(line.function).map_or("", |function| &function.name);
        let suffix = match location.kind {
            FrameKind::Kernel => "_[k]",
            FrameKind::User | FrameKind::Marker if index < outermost => "_[i]",
            FrameKind::User | FrameKind::Marker => "",
        };
        push(key, name, suffix);
    }
}

fn push(key: &mut String, name: &str, suffix: &str) {
    if !key.is_empty() {
        key.push(SEPARATOR);
    }
    key.push_str(&frame_text(name));
    key.push_str(suffix);
}

/// `name` such that no reader of folded lines takes a part of it for something else: `;` separates frames, `#
/// ` begins a comment, a last word of digits is a count, white space at the ends is cut, and an empty frame
/// is the root of all.
fn frame_text(name: &str) -> Cow<'_, str> {
    let name = match printable(name.trim()) {
        name if name.is_empty() => return Cow::Borrowed("[unnamed]"),
        name if name.contains(';') => Cow::Owned(name.replace(';', ":")),
        name => name,
    };
    let is_comment = name.starts_with("# ");
    let ends_like_a_count = name
        .rsplit_once(' ')
        .is_some_and(|(_, last)| last.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'));
    if is_comment || ends_like_a_count { Cow::Owned(name.replace(' ', "_")) } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::example;

    /// Nothing in a name can be mistaken for the syntax of folded lines.
    #[test]
    fn names_cannot_break_a_line() {
        for (name, text) in [
            ("main", "main"),
            ("operator new(unsigned long)", "operator new(unsigned long)"),
            ("[u8; 8]", "[u8: 8]"),
            ("a\nb", "a\u{fffd}b"),
            ("a\0b", "a\u{fffd}b"),
            ("Thread 12", "Thread_12"),
            ("v 1.5", "v_1.5"),
            ("# comment", "#_comment"),
            ("  padded ", "padded"),
            ("", "[unnamed]"),
            (" ", "[unnamed]"),
        ] {
            assert_eq!(frame_text(name), text, "{name:?}");
        }
    }

    /// A stack that is the beginning of others comes right before them, whatever characters the names
    /// contain. (Sorted as folded lines, `f(int)` would come between `f` and `f;g`, and a flame graph would
    /// draw `f` twice.)
    #[test]
    fn callees_follow_their_callers() {
        let mut keys = vec!["f\0g".to_owned(), "f(int)".to_owned(), "f".to_owned(), "f g\0h".to_owned()];
        keys.sort();
        assert_eq!(keys, ["f", "f\0g", "f g\0h", "f(int)"]);
    }

    /// Only what was measured appears: stacks of value 0 are left out.
    #[test]
    fn empty_stacks_are_left_out() {
        let mut profile = example::profile();
        assert_eq!(by_stack(&profile, 0).len(), 6);
        for sample in &mut profile.samples[..3] {
            sample.values[0] = 0;
        }
        assert_eq!(by_stack(&profile, 0).len(), 3);
        assert_eq!(by_stack(&profile, 9).len(), 0, "there is no such value");
    }
}
