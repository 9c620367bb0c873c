//! Whether a stack is whole, by its outermost function: the same question to both profilers.

use std::collections::HashMap;
use std::ops::Range;

use crate::compare_perf::leaf::Leaf;
use crate::elf_symbols::ElfSymbols;

/// Functions that nobody calls, and those of the C library between them and a program's first own function. Where unwinding
/// ends in one of them nothing of the program is missing.
const ENTRIES: [&str; 12] = [
    "_start",
    "_dl_start_user",
    "__libc_start_main",
    "__libc_start_main_impl",
    "__libc_start_call_main",
    "clone",
    "__clone",
    "clone3",
    "__clone3",
    "start_thread",
    "thread_start",
    "ret_from_fork",
];

/// Bytes of code at a file's entry point that are `_start` where no symbol says how long it is.
const ENTRY_CODE: u64 = 48;

/// How a user stack ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Ending {
    /// At the thread's or process's first function.
    Whole,
    /// Somewhere else.
    Cut,
    /// There is no user frame: a task that is exiting has no user memory any more.
    NoStack,
}

/// Tells endings apart.
#[derive(Default)]
pub(crate) struct Classifier {
    /// Of each module, where in its file the entry functions are.
    entries: HashMap<String, Vec<Range<u64>>>,
}

impl Classifier {
    /// How a stack ends whose outermost frame is `outermost`, `file_offset` being where in the module's file its code is.
    ///
    /// A frame that the profiler has no name for is looked up in the file and its debug file, for both profilers alike: whether
    /// a stack is whole does not depend on who knows the name of its end.
    pub(crate) fn ending(&mut self, outermost: Option<(&Leaf, u64)>) -> Ending {
        let Some((frame, file_offset)) = outermost else { return Ending::NoStack };
        let is_entry = match &frame.symbol {
            Some(name) => is_entry_name(name),
            None => self.entries_of(&frame.module).iter().any(|function| function.contains(&file_offset)),
        };
        if is_entry { Ending::Whole } else { Ending::Cut }
    }

    fn entries_of(&mut self, module: &str) -> &[Range<u64>] {
        self.entries.entry(module.to_owned()).or_insert_with(|| {
            if module.starts_with('/') { entries(&ElfSymbols::read(module)) } else { Vec::new() }
        })
    }
}

/// Whether a function of this name is one that threads and processes begin in.
pub(crate) fn is_entry_name(name: &str) -> bool {
    ENTRIES.contains(&name)
}

fn entries(symbols: &ElfSymbols) -> Vec<Range<u64>> {
    let named = symbols.functions.iter().filter(|function| is_entry_name(&Leaf::symbol_name(&function.name)));
    // Assembly may have no size.
    let named = named.map(|function| (function.address, function.size.max(ENTRY_CODE)));
    let entry = (symbols.entry > 0).then_some((symbols.entry, ENTRY_CODE));
    let offset = |(address, size)| symbols.file_offset(address).map(|offset| offset..offset + size);
    named.chain(entry).filter_map(offset).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(symbol: Option<&str>, module: &str, file_offset: u64) -> Ending {
        Classifier::default().ending(Some((&Leaf::new(symbol, Some(module)), file_offset)))
    }

    /// Starts of processes and threads are ends of whole stacks, with and without a symbol version; no other function is, and
    /// no frame at all is a class of its own.
    #[test]
    fn outermost_functions_are_told() {
        for name in
            ["_start", "__libc_start_main@@GLIBC_2.34", "__libc_start_call_main", "clone3", "start_thread"]
        {
            assert_eq!(ending(Some(name), "/c.so", 0), Ending::Whole, "{name}");
        }
        for name in ["main", "_start@plt", "__memset_avx2_unaligned_erms", "restart"] {
            assert_eq!(ending(Some(name), "/c.so", 0), Ending::Cut, "{name}");
        }
        assert_eq!(ending(None, "/nonexistent", 0), Ending::Cut);
        assert_eq!(ending(None, "[anon]", 0), Ending::Cut);
        assert_eq!(Classifier::default().ending(None), Ending::NoStack);
    }

    /// A nameless frame at a file's entry point is its `_start`, and nothing behind it is: this test's own file.
    #[test]
    fn nameless_ends_are_looked_up_in_the_file() {
        let own = std::env::current_exe().unwrap();
        let own = own.to_str().unwrap();
        let symbols = ElfSymbols::read(own);
        let start = symbols.file_offset(symbols.entry).unwrap();
        assert_eq!(ending(None, own, start + 0x21), Ending::Whole);
        let main = symbols.functions.iter().find(|function| function.name == "main").unwrap();
        let main = symbols.file_offset(main.address).unwrap();
        assert_eq!(ending(None, own, main + 1), Ending::Cut);
    }
}
