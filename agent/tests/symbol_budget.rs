//! More modules than there is memory for: the budget holds by the allocator's count, and what is found again is right.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use agent::kernel::sideband::record::FileHint;
use agent::metrics::SelfMetrics;
use agent::process::module::{ModuleId, ModuleKey, ModuleTable, Witness};
use agent::symbol::debug_file::DebugFiles;
use agent::symbol::demangle::NameStyle;
use agent::symbol::frame::Frame;
use agent::symbol::jit::jvm::JvmPerfMap;
use agent::symbol::resolver::{Resolver, ResolverUse, SymbolLimits};
use agent::symbol::symbols::Symbols;
use harness::counted_heap::{self, CountedHeap};
use harness::kernel::is_in_path;
use harness::many_modules::{Function, ManyModules};
use harness::require;
use harness::session::descriptors;

#[global_allocator]
static HEAP: CountedHeap = CountedHeap;

const MODULES: usize = 400;
const FUNCTIONS: usize = 12_000;
const ROUNDS: usize = 4;
/// Functions that are asked for of each module in a round.
const ASKED: usize = 48;
/// Modules that are asked about at once.
const TOGETHER: usize = 16;
/// `--symbol-memory`.
const BUDGET: usize = 16 << 20;
/// Bytes for which modules' debug files are where; on top of the budget, as the kernel's symbols are.
const DEBUG_FILES: usize = 256 << 10;
/// What two readers take while each indexes a module or parses a unit, and the answers that the test holds.
const IN_PASSING: usize = 2 << 20;
/// Files that are open at once.
const FILES: usize = 32;

struct Subject {
    files: ManyModules,
    ids: Vec<ModuleId>,
    resolver: Arc<Resolver>,
    /// Bytes that were allocated before there was a resolver.
    before: usize,
    lines: bool,
}

impl Subject {
    fn new(lines: bool) -> Self {
        let files = ManyModules::new(MODULES, FUNCTIONS);
        let modules = Arc::new(ModuleTable::default());
        let ids = files.paths.iter().map(|path| {
            let found = fs::metadata(path).expect("it is there");
            let hint = FileHint { device: found.dev(), inode: found.ino() };
            let key = ModuleKey::File { path: path.to_str().expect("UTF-8").into(), hint };
            modules.intern(key, Witness { pid: std::process::id(), start: 0, end: 0x1000 })
        });
        let ids = ids.collect();
        let debug_files = Arc::new(DebugFiles::new(Vec::new(), DEBUG_FILES));
        let limits = SymbolLimits {
            memory: BUDGET,
            lines,
            debug_info: 4 << 30,
            jvm_perf_map: JvmPerfMap::Off,
            style: NameStyle::Full,
        };
        let before = counted_heap::now();
        let metrics = SelfMetrics::new().expect("good names");
        let resolver = Resolver::new(modules, debug_files, limits, &metrics).expect("threads can be started");
        // Once kallsyms is read, it does not grow any more.
        resolver.resolve(Frame::Kernel { address: u64::MAX });
        counted_heap::reset_peak();
        Self { files, ids, resolver, before, lines }
    }

    /// Which function is asked for in this round as the `number`th of a module: the first is the same in all rounds, for which its name
    /// has to be found again each time.
    fn function(&self, round: usize, number: usize) -> usize {
        if number == 0 { 7 } else { (round * ASKED + number) * 7919 % self.files.functions() }
    }

    /// Asks for names in all modules, and has each looked at; how many have a line.
    fn ask_all(&self, round: usize) -> usize {
        let mut with_line = 0;
        for first in (0..MODULES).step_by(TOGETHER) {
            let asked: Vec<_> = (first..(first + TOGETHER).min(MODULES))
                .flat_map(|module| (0..ASKED).map(move |number| (module, number)))
                .map(|(module, number)| (module, self.function(round, number)))
                .collect();
            let frame = |&(module, function): &(usize, usize)| Frame::User {
                module: self.ids[module],
                file_offset: self.files.file_offset(function),
                guessed: false,
            };
            let frames: Vec<_> = asked.iter().map(frame).collect();
            for ((module, function), symbols) in asked.into_iter().zip(self.resolver.resolve_all(&frames)) {
                with_line += usize::from(self.assert_right(module, function, &symbols));
            }
        }
        with_line
    }

    /// The name is always right; the line too, if there is one.
    fn assert_right(&self, module: usize, function: usize, symbols: &Symbols) -> bool {
        let truth = Function::of(module, function);
        let [frame] = &*symbols.frames else { panic!("{symbols:?}") };
        assert_eq!((frame.function.name(), symbols.unresolved), (&*truth.name, None), "{symbols:?}");
        let path = symbols.module.as_ref().map(|module| &*module.path);
        assert_eq!(path, self.files.paths[module].to_str());
        let Some(file) = &frame.file else { return false };
        assert!(self.lines, "nobody wants lines");
        assert_eq!((file.as_ref(), frame.line), (self.files.source().to_str().expect("UTF-8"), truth.line));
        true
    }

    /// Bytes of the resolver's, but for the kernel's symbols: as many as are allocated now, and the most that there were.
    fn heap(&self) -> (usize, usize) {
        let kernel = self.resolver.memory_use().kernel_bytes;
        let of = |bytes: usize| bytes.saturating_sub(self.before + kernel);
        (of(counted_heap::now()), of(counted_heap::peak()))
    }
}

fn budget_holds(lines: bool) {
    if !require("gcc", is_in_path("gcc")) {
        return;
    }
    let subject = Subject::new(lines);
    let open_before = descriptors().0.len();
    for round in 0..ROUNDS {
        let with_line = subject.ask_all(round);
        let (now, peak) = subject.heap();
        let open = descriptors().0.len() - open_before;
        println!(
            "round {round}: {} KiB, peak {} KiB, {open} files, {with_line} of {} with a line",
            now >> 10,
            peak >> 10,
            MODULES * ASKED
        );
        assert_eq!(with_line, if lines { MODULES * ASKED } else { 0 });
        assert!(now <= BUDGET + DEBUG_FILES, "{now} bytes");
        assert!(peak <= BUDGET + DEBUG_FILES + IN_PASSING, "{peak} bytes");
        assert!(open <= FILES, "{open} open files");
    }
    let ResolverUse { symbol_counts, function_counts, index_bytes, index_counts, debug, .. } =
        subject.resolver.memory_use();
    println!("{symbol_counts:?}, {function_counts:?}, indexes {index_bytes} {index_counts:?}, {debug:?}");
    // Everything had to be found again in every round, for what was there before had gone. Without lines functions are remembered,
    // and not frames.
    let names = if lines { symbol_counts } else { function_counts };
    assert!(names.evictions > (MODULES * ASKED) as u64, "{names:?}");
    assert!(index_counts.evictions > (MODULES * (ROUNDS - 1)) as u64, "{index_counts:?}");
    assert_eq!(debug.is_some(), lines);
    if let Some(debug) = debug {
        assert!(debug.unit_counts.evictions > (MODULES * (ROUNDS - 1)) as u64, "{debug:?}");
    }
}

/// 400 modules of 12,000 functions, asked about in turn four times: what is held stays within a budget of 16 MiB that would hold a
/// quarter of their indexes, no more than 32 files are open, and every name is right, also those that were forgotten. The same with
/// lines: all are there, because one module's debug information has room in half of the budget, and right. In one test, because
/// the allocator counts for the process.
#[test]
fn names_and_lines_of_400_modules_in_16_mib() {
    budget_holds(false);
    budget_holds(true);
}
