//! A function's two names, in one piece of memory that all frames in the function share.

use std::fmt;
use std::sync::Arc;

use crate::symbol::demangle::demangle;

/// A function's name for people, and the one in its symbol table. Cheap to clone.
///
/// There are a hundred thousand of these, so both texts are one allocation, and one text where they are alike.
#[derive(Clone, PartialEq, Eq)]
pub struct FunctionName {
    /// The name for people, then the other one; only one where they are alike.
    text: Arc<str>,
    /// Where the name for people ends.
    shown_end: u32,
    /// Where the other one begins: at 0, or where the first ends.
    system_start: u32,
}

impl FunctionName {
    /// The function that is called `system_name` in a symbol table.
    pub fn of(system_name: &str) -> Self {
        Self::new(demangle(system_name), system_name)
    }

    /// The function that is shown as `name` and is called `system_name` in a symbol table; empty where there is none.
    pub fn new<'a>(name: impl Into<std::borrow::Cow<'a, str>>, system_name: &str) -> Self {
        let name = name.into();
        // Names are bounded where they are read: lengths fit.
        let shown_end = name.len() as u32;
        if *name == *system_name {
            return Self { text: name.into(), shown_end, system_start: 0 };
        }
        let mut text = name.into_owned();
        text.push_str(system_name);
        Self { text: text.into(), shown_end, system_start: shown_end }
    }

    /// A function of which only that is known what it is to be called.
    pub fn called(name: &str) -> Self {
        Self::new(name, "")
    }

    /// For people: demangled, or `module+0xoffset`.
    pub fn name(&self) -> &str {
        self.text.get(..self.shown_end as usize).unwrap_or(&self.text)
    }

    /// As it stands in the symbol table; empty where there is none.
    pub fn system_name(&self) -> &str {
        self.text.get(self.system_start as usize..).unwrap_or(&self.text)
    }

    /// Bytes on the heap: the texts, two counters, and what an allocator rounds up.
    pub fn heap_bytes(&self) -> usize {
        self.text.len() + 3 * size_of::<usize>()
    }
}

impl fmt::Debug for FunctionName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("FunctionName");
        debug.field("name", &self.name()).field("system_name", &self.system_name()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both names come out as they went in, alike or not, empty or not; alike ones are kept once.
    #[test]
    fn both_names_are_kept() {
        for (name, system_name) in
            [("main", "main"), ("foo::bar", "_ZN3foo3barEv"), ("a.so+0x10", ""), ("", ""), ("é", "_é")]
        {
            let function = FunctionName::new(name, system_name);
            assert_eq!((function.name(), function.system_name()), (name, system_name));
            assert_eq!(function, FunctionName::new(name.to_owned(), system_name));
        }
        let (once, twice) = (FunctionName::of("main"), FunctionName::new("main", "niam"));
        assert_eq!(twice.heap_bytes() - once.heap_bytes(), 4);
    }

    /// A mangled name is shown demangled.
    #[test]
    fn mangled_names_are_demangled() {
        let function = FunctionName::of("_ZN3foo3barEv");
        assert_eq!((function.name(), function.system_name()), ("foo::bar", "_ZN3foo3barEv"));
    }
}
