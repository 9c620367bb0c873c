//! How quickly addresses of a file get their names, by this project's resolver or by blazesym: one tool, one mode, one file a process,
//! so that what each takes of memory can be told.
//!
//! `cargo bench --bench symbols -- TOOL MODE COUNT FILE`; `cargo xtask bench symbols` runs it. TOOL is `nodeprof` or `blazesym`. MODE is
//! `names`, or `lines` for lines and inlined functions too; with `-heap` appended what is allocated is counted, which costs time. One
//! line comes out, its fields separated by tabs: nanoseconds to the first name, nanoseconds for COUNT other addresses once as many
//! have been asked before, nanoseconds of CPU time for these, COUNT, how many of them have a name, frames of all of them, peak bytes of
//! resident memory, peak bytes of heap.

#![expect(clippy::expect_used, reason = "a benchmark fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use agent::governor::heap;
use agent::kernel::sideband::record::FileHint;
use agent::metrics::SelfMetrics;
use agent::process::module::{ModuleId, ModuleKey, ModuleTable, Witness};
use agent::symbol::debug_file::DebugFiles;
use agent::symbol::demangle::NameStyle;
use agent::symbol::elf::{ElfImage, ElfLimits, FunctionIndex};
use agent::symbol::frame::Frame;
use agent::symbol::jit::jvm::JvmPerfMap;
use agent::symbol::read_at::FileAt;
use agent::symbol::resolver::{Resolver, SymbolLimits};
use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{Input, Symbolizer};
use nix::time::{ClockId, clock_gettime};

/// What `--symbol-memory` is by default.
const SYMBOL_MEMORY: usize = 24 << 20;
/// Bytes for what is known of debug files.
const DEBUG_FILES: usize = 256 << 10;
/// How long the kernel's symbols may take to load, which are no part of what is measured.
const KERNEL_LOADED: Duration = Duration::from_secs(20);

/// Counts what is allocated, when it is told to.
struct Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.load(Ordering::Relaxed) {
            let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
            PEAK.fetch_max(now, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise is the same as is asked for here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if COUNTS.load(Ordering::Relaxed) {
            NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        }
        // SAFETY: as above; `alloc` gave this pointer.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What a tool made of a batch.
#[derive(Default)]
struct Answers {
    named: usize,
    frames: usize,
}

/// Something that names file offsets.
trait Tool {
    fn name_all(&self, file_offsets: &[u64]) -> Answers;
}

struct Nodeprof {
    resolver: Arc<Resolver>,
    module: ModuleId,
}

impl Nodeprof {
    fn new(path: &Path, lines: bool) -> Self {
        let modules = Arc::new(ModuleTable::default());
        let metadata = fs::metadata(path).expect("the file is there");
        let key = ModuleKey::File {
            path: path.to_str().expect("UTF-8").into(),
            hint: FileHint { device: metadata.dev(), inode: metadata.ino() },
        };
        let module = modules.intern(key, Witness { pid: std::process::id(), start: 0, end: 0 });
        let debug_files = Arc::new(DebugFiles::new(vec!["/usr/lib/debug".into()], DEBUG_FILES));
        let limits = SymbolLimits {
            memory: SYMBOL_MEMORY,
            lines,
            debug_info: u64::MAX,
            jvm_perf_map: JvmPerfMap::default(),
            style: NameStyle::Full,
        };
        let resolver = Resolver::new(modules, debug_files, limits, &SelfMetrics::new().expect("a registry"))
            .expect("threads can be started");
        let began = Instant::now();
        while resolver.memory_use().kernel_symbols == 0 && began.elapsed() < KERNEL_LOADED {
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { resolver, module }
    }
}

impl Tool for Nodeprof {
    fn name_all(&self, file_offsets: &[u64]) -> Answers {
        let frame = |file_offset: &u64| Frame::User {
            module: self.module,
            file_offset: *file_offset,
            guessed: false,
        };
        let frames: Vec<_> = file_offsets.iter().map(frame).collect();
        let mut answers = Answers::default();
        for symbols in self.resolver.resolve_all(&frames) {
            answers.named += usize::from(symbols.unresolved.is_none());
            answers.frames += symbols.frames.len();
        }
        answers
    }
}

struct Blazesym {
    symbolizer: Symbolizer,
    source: Source<'static>,
}

impl Blazesym {
    fn new(path: &Path, lines: bool) -> Self {
        let builder = Symbolizer::builder().enable_auto_reload(false);
        let symbolizer = builder.enable_code_info(lines).enable_inlined_fns(lines).build();
        let mut elf = Elf::new(path);
        elf.debug_syms = lines;
        Self { symbolizer, source: Source::Elf(elf) }
    }
}

impl Tool for Blazesym {
    fn name_all(&self, file_offsets: &[u64]) -> Answers {
        let mut answers = Answers::default();
        let symbols = self.symbolizer.symbolize(&self.source, Input::FileOffset(file_offsets));
        for symbol in symbols.expect("the file can be read").iter().filter_map(|answer| answer.as_sym()) {
            answers.named += 1;
            answers.frames += 1 + symbol.inlined.len();
        }
        answers
    }
}

/// File offsets of code that the file's own symbols cover, so that both tools have as much to do; each once, always the same: `count`
/// of them.
fn file_offsets(path: &Path, count: usize) -> Vec<u64> {
    let file = File::open(path).and_then(FileAt::new).expect("the file can be opened");
    let image = ElfImage::parse(&file, &ElfLimits::default()).expect("an ELF file");
    let index = FunctionIndex::build(&file, &image, &ElfLimits::default()).expect("symbols");
    let sections: Vec<_> = image.sections().iter().filter(|section| section.is_code()).collect();
    let total: u64 = sections.iter().map(|section| section.size).sum();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut known = HashSet::new();
    let mut offsets = Vec::with_capacity(count);
    // What is not covered, or was there before, costs an attempt.
    for _ in 0..100 * count {
        if offsets.len() == count {
            break;
        }
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mut into = state % total;
        let section = sections.iter().find(|section| {
            let within = into < section.size;
            if !within {
                into -= section.size;
            }
            within
        });
        let section = section.expect("there is code");
        let offset = section.file_offset + into;
        if index.lookup(section.address + into).is_some() && known.insert(offset) {
            offsets.push(offset);
        }
    }
    offsets
}

/// A line of `/proc/self/status`, in bytes.
fn memory(line: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is there");
    let found =
        status.lines().find_map(|text| text.strip_prefix(line)?.split_whitespace().next()?.parse().ok());
    found.map_or(0, |kibibytes: usize| kibibytes << 10)
}

/// CPU time of all threads of this process so far.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("there is such a clock").into()
}

fn main() {
    // As the agent does.
    heap::use_few_arenas();
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [tool, mode, count, path] = arguments.as_slice() else {
        // `cargo test --benches` runs this without arguments.
        return;
    };
    let count: usize = count.parse().expect("a number");
    let path = Path::new(path);
    let (lines, heap) = (mode.starts_with("lines"), mode.ends_with("-heap"));
    let offsets = file_offsets(path, 2 * count + 1);
    let (first, others) = offsets.split_first().expect("there is code");
    let (before, asked) = others.split_at(others.len() / 2);
    let nodeprof = (tool == "nodeprof").then(|| Nodeprof::new(path, lines));

    // Makes the peak that of what follows (proc(5)).
    fs::write("/proc/self/clear_refs", "5").expect("the peak can be reset");
    let resident = memory("VmRSS:");
    COUNTS.store(heap, Ordering::Relaxed);
    let began = Instant::now();
    let tool: Box<dyn Tool> = match nodeprof {
        Some(tool) => Box::new(tool),
        None => Box::new(Blazesym::new(path, lines)),
    };
    tool.name_all(&[*first]);
    let cold = began.elapsed();
    tool.name_all(before);
    let (began, cpu_began) = (Instant::now(), cpu_time());
    let answers = tool.name_all(asked);
    let (warm, cpu) = (began.elapsed(), cpu_time().saturating_sub(cpu_began));
    let resident = memory("VmHWM:").saturating_sub(resident);
    println!(
        "{}\t{}\t{}\t{}\t{}\t{}\t{resident}\t{}",
        cold.as_nanos(),
        warm.as_nanos(),
        cpu.as_nanos(),
        asked.len(),
        answers.named,
        answers.frames,
        PEAK.load(Ordering::Relaxed)
    );
}
