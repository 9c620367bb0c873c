//! Go's own tables against what Go's runtime and its linker say: names, inlined functions and lines of addresses all over a program,
//! and rows for unwinding.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use agent::symbol::elf::{ElfImage, ElfLimits};
use agent::symbol::gopclntab::{GoLimits, GoTable, shown_name};
use agent::unwind::{CfiIndex, CfiLimits, Page, add_go_rows, build_page};
use agent_ebpf::rule::{Rule, TEXT_PAGE, kind};
use harness::kernel::is_in_path;
use harness::require;
use harness::workload::Workload;

/// Addresses that are asked about, a program.
const ADDRESSES: u64 = 12_000;
const ORACLE: &str = "gotables/oracle.go";

/// A Go program's file and its tables.
struct Program {
    file: Vec<u8>,
    image: ElfImage,
    go: GoTable,
}

impl Program {
    fn open(workload: &Workload) -> Self {
        let file = fs::read(workload.program()).expect("it was compiled");
        let image = ElfImage::parse(&file, &ElfLimits::default()).expect("an ELF file");
        let go = GoTable::open(&file, &image, &GoLimits::default()).expect("sound tables").expect("tables");
        Self { file, image, go }
    }

    /// Addresses spread over the text by a generator with a fixed seed.
    fn addresses(&self) -> Vec<u64> {
        let text = self.go.text_range(&self.file).expect("sound tables");
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.start + state % (text.end - text.start)
        };
        (0..ADDRESSES).map(|_| next()).collect()
    }

    /// (function, file, line) at `address`, innermost first.
    fn lines(&self, address: u64) -> Vec<(String, String, u32)> {
        let lines = self.go.lines(&self.file, &self.image, address).expect("sound tables");
        let line = |line: agent::symbol::gopclntab::GoLine| {
            // As the runtime prints what it does not know.
            let file = if line.file.is_empty() { "?".to_owned() } else { line.file };
            (shown_name(&line.function).into_owned(), file, line.line)
        };
        lines.into_iter().map(line).collect()
    }

    /// Whether a function begins right behind `address`: the runtime takes that for the address it was asked about.
    fn is_before_a_function(&self, address: u64) -> bool {
        let next = self.go.function_at(&self.file, address + 1).expect("sound tables");
        next.is_none_or(|function| function.entry == address + 1)
    }
}

/// What the program's own runtime says of `addresses`, which are `bias` higher where it runs.
fn ask(workload: &Workload, addresses: &[u64], bias: u64) -> Vec<Vec<(String, String, u32)>> {
    let mut command = Command::new("setarch");
    command.args(["--addr-no-randomize"]).arg(workload.program());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut input = child.stdin.take().expect("a pipe");
    let questions: Vec<String> = addresses.iter().map(|address| format!("{:x}", address + bias)).collect();
    let questions = questions.join("\n");
    let writer = std::thread::spawn(move || input.write_all(questions.as_bytes()));
    let output = child.wait_with_output().expect("an answer");
    writer.join().expect("no panic").expect("all is read");
    assert!(output.status.success());
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let of =
            |three: &[&str]| (three[0].to_owned(), three[1].to_owned(), three[2].parse().expect("a line"));
        fields.chunks_exact(3).map(of).collect()
    };
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(parse).collect()
}

/// Where Linux puts a position independent program without randomisation (`ELF_ET_DYN_BASE` rounded, x86-64).
const PIE_BASE: u64 = 0x5555_5555_4000;

/// The load bias of a position independent program whose first segment is linked for `first`.
fn bias(program: &Program) -> u64 {
    let first = program.image.segments().iter().map(|segment| segment.address).min().expect("a segment");
    if program.image.elf_type() == object::elf::ET_EXEC { 0 } else { PIE_BASE - (first & !0xfff) }
}

/// Compares thousands of addresses; how many had inlined functions, and how deep at most.
fn compare(workload: &Workload) -> (usize, usize) {
    let program = Program::open(workload);
    let mut addresses = program.addresses();
    addresses.retain(|address| !program.is_before_a_function(*address));
    let answers = ask(workload, &addresses, bias(&program));
    assert_eq!(answers.len(), addresses.len());
    let (mut inlined, mut deepest, mut wrappers, mut wrong) = (0, 0, 0, Vec::new());
    for (address, mut theirs) in addresses.iter().zip(answers) {
        let ours = program.lines(*address);
        // The first name of all, at offset 0, is none to the runtime.
        if let ([ours], [theirs]) = (ours.as_slice(), theirs.as_mut_slice())
            && theirs.0.is_empty()
        {
            theirs.0.clone_from(&ours.0);
        }
        inlined += usize::from(ours.len() > 1);
        deepest = deepest.max(ours.len());
        // The runtime leaves out functions that the compiler wrapped around others, from the outermost on or in between.
        let mut rest = theirs.iter().peekable();
        let hidden = ours.iter().filter(|line| rest.next_if_eq(line).is_none()).count();
        if rest.peek().is_some() || hidden > 1 || theirs.is_empty() {
            wrong.push(format!("{address:#x}: {ours:?}, but {theirs:?}"));
        }
        wrappers += hidden;
    }
    let program = workload.program().display();
    println!(
        "{program}: {} addresses, {inlined} with inlined functions, {deepest} deep at most, {wrappers} wrappers, {} wrong",
        addresses.len(),
        wrong.len()
    );
    assert!(addresses.len() > 10_000);
    assert!(wrong.is_empty(), "{program}: {}", wrong[..wrong.len().min(10)].join("\n"));
    assert!(wrappers * 50 < addresses.len(), "{wrappers} functions are ours only");
    (inlined, deepest)
}

/// Names, inlined functions, files and lines of thousands of addresses are what the program's own runtime says: in a plain program,
/// a stripped one, and position independent ones linked by Go's linker and by the C compiler's.
#[test]
fn names_inlined_functions_and_lines_are_the_runtimes() {
    if !["go", "gcc", "setarch"].iter().all(|tool| require(tool, is_in_path(tool))) {
        return;
    }
    let stripped = ["-ldflags", "-s -w"];
    let by_gcc = ["-buildmode=pie", "-ldflags", "-s -w -linkmode=external"];
    let programs = [
        Workload::go(ORACLE, "plain"),
        Workload::go_with(ORACLE, "stripped", &stripped, false),
        Workload::go_with(ORACLE, "pie", &["-buildmode=pie", "-ldflags", "-s -w"], false),
        Workload::go_with(ORACLE, "pie-by-gcc", &by_gcc, true),
    ];
    for program in &programs {
        let (inlined, deepest) = compare(program);
        assert!(inlined > 1000 && deepest >= 4, "{inlined}, {deepest}");
    }
}

/// How two rules for one address differ, by what Go's linker does not write into `.debug_frame`.
fn difference(ours: Rule, theirs: Rule) -> Option<String> {
    let same_cfa =
        (ours.kind, ours.cfa_offset, ours.ra_offset) == (theirs.kind, theirs.cfa_offset, theirs.ra_offset);
    let known = match (ours.kind, theirs.kind) {
        (kind::SP, kind::SP) | (kind::SP_FAR, kind::SP_FAR) if same_cfa => return None,
        (kind::SLOW, kind::SLOW) => return None,
        (kind::END, _) => "end of a stack",
        (kind::FP_SWITCH, kind::SP) => "switches stacks, by the frame pointer",
        (kind::SLOW, kind::SP) => "switches stacks without a frame",
        (kind::NONE, _) => "returns from a signal",
        (_, kind::NONE) => "alignment between functions",
        _ => return Some(format!("unexplained: {ours:?}, but {theirs:?}")),
    };
    Some(known.to_owned())
}

/// For every address of a program the rows are those of its `.debug_frame`, but for what that does not say.
#[test]
fn rows_are_those_of_debug_frame() {
    if !require("go", is_in_path("go")) {
        return;
    }
    let program = Program::open(&Workload::go(ORACLE, "plain"));
    let Program { file, image, go } = &program;
    let index = CfiIndex::open(file, image, &CfiLimits::default()).expect("`.debug_frame`");
    let text = image.text_segment().expect("code");
    let (mut equal, mut saved, mut differences) = (0_u64, 0_u64, BTreeMap::<_, u64>::new());
    for number in text.file_offset / TEXT_PAGE..=(text.file_offset + text.file_size - 1) / TEXT_PAGE {
        let theirs = build_page(file, &index, image, number).expect("sound CFI").rows;
        let mut ours = Page { rows: vec![(0, Rule::default())], ..Page::default() };
        add_go_rows(file, image, go, number, &mut ours).expect("sound tables");
        assert_eq!(ours.stats.bad_fdes, 0);
        assert!(ours.rows.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 != two[1].1));
        for offset in 0..TEXT_PAGE as u16 {
            let rule = |rows: &[(u16, Rule)]| rows[rows.partition_point(|row| row.0 <= offset) - 1].1;
            let Some(address) = image.file_offset_to_address(number * TEXT_PAGE + u64::from(offset)) else {
                continue;
            };
            if !go.text_range(file).expect("sound tables").contains(&address) {
                continue;
            }
            let (ours, theirs) = (rule(&ours.rows), rule(&theirs));
            saved += u64::from(ours.fp == agent_ebpf::rule::fp::SAVED);
            match difference(ours, theirs) {
                None => equal += 1,
                Some(difference) => *differences.entry(difference).or_default() += 1,
            }
        }
    }
    println!("{equal} bytes of code with equal rules, {saved} with a saved frame pointer; {differences:?}");
    assert!(equal > 1 << 20);
    assert!(!differences.keys().any(|what| what.starts_with("unexplained")), "{differences:#?}");
    let others: u64 =
        differences.iter().filter(|(what, _)| !what.starts_with("alignment")).map(|(_, n)| n).sum();
    assert!(others * 200 < equal, "{differences:?}");
}
