//! Chains of calls that a test knows, and stacks that are to show them.

use super::profiled::Frame;
use Want::{In, Name};

/// A frame as a test wants it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Want {
    /// A function of this name.
    Name(&'static str),
    /// Some function of the file of this name: distributions strip what is local.
    In(&'static str),
}

/// The outermost frames of a main thread of glibc's, below `main`.
pub(crate) const MAIN: &[Want] = &[In("libc.so.6"), Name("__libc_start_main"), Name("_start")];
/// The same where glibc is linked in, with its symbols.
pub(crate) const MAIN_STATIC: &[Want] =
    &[Name("__libc_start_call_main"), Name("__libc_start_main"), Name("_start")];
/// The outermost frames of other threads of glibc's: `start_thread` and `clone3`.
pub(crate) const THREAD: &[Want] = &[In("libc.so.6"), In("libc.so.6")];

impl Want {
    fn is(self, frame: &Frame<'_>) -> bool {
        match self {
            Name(name) => frame.name == name,
            In(file) => is_in(frame, file),
        }
    }
}

pub(crate) fn is_in(frame: &Frame<'_>, file: &str) -> bool {
    frame.kind == "user" && frame.module.rsplit('/').next() == Some(file) && !is_guessed(frame)
}

pub(crate) fn is_guessed(frame: &Frame<'_>) -> bool {
    frame.name.ends_with(" [guessed]")
}

/// Functions by name and what is below them.
pub(crate) fn chain(names: &[&'static str], below: &[Want]) -> Vec<Want> {
    names.iter().map(|name| Name(name)).chain(below.iter().copied()).collect()
}

/// Whether `stack` is all of `chain`, or what is left of it when the sample hit one of the callers.
pub(crate) fn ends_as(stack: &[Frame<'_>], chain: &[Want]) -> bool {
    let skipped = chain.len().checked_sub(stack.len());
    let rest = skipped.and_then(|skipped| chain.get(skipped..)).unwrap_or_default();
    !stack.is_empty()
        && rest.len() == stack.len()
        && rest.iter().zip(stack).all(|(want, frame)| want.is(frame))
}

/// What is left of `stack` below its innermost frames that `skip` accepts.
pub(crate) fn below<'a, 'b>(stack: &'a [Frame<'b>], skip: impl Fn(&Frame<'_>) -> bool) -> &'a [Frame<'b>] {
    let first = stack.iter().position(|frame| !skip(frame)).unwrap_or(stack.len());
    &stack[first..]
}
