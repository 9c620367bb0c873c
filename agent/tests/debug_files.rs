//! Names of stripped programs: from separate debug files and from MiniDebugInfo, made by the tools that distributions make them
//! with; and from no file that is not the right one.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use agent::kernel::sideband::record::FileHint;
use agent::metrics::SelfMetrics;
use agent::process::module::{Module, ModuleId, ModuleKey, ModuleTable, Witness};
use agent::symbol::debug_file::{DebugFileCounts, DebugFiles, DebugInfo, FoundFile};
use agent::symbol::demangle::NameStyle;
use agent::symbol::elf::{ElfFile, ElfImage, ElfLimits, FunctionIndex};
use agent::symbol::frame::Frame;
use agent::symbol::jit::jvm::JvmPerfMap;
use agent::symbol::read_at::FileAt;
use agent::symbol::resolver::{Resolver, SymbolLimits};
use agent::symbol::unresolved::UnresolvedReason;
use harness::kernel::is_in_path;
use harness::require;
use harness::running::Running;
use harness::stripped::{Stripped, run};
use harness::workload::Workload;

/// A module's functions by address: its names as they stand in the file, or why there is none.
type Names = BTreeMap<u64, Result<String, UnresolvedReason>>;

/// A resolver that looks for debug files in `directories`, and one module.
struct Subject {
    modules: Arc<ModuleTable>,
    debug_files: Arc<DebugFiles>,
    resolver: Arc<Resolver>,
    path: PathBuf,
    id: ModuleId,
}

impl Subject {
    fn new(path: &Path, directories: &[&Path]) -> Self {
        Self::of_process(path, path, std::process::id(), directories)
    }

    /// The module that process `pid` knows as `path`, and that lies at `here` for us.
    fn of_process(here: &Path, path: &Path, pid: u32, directories: &[&Path]) -> Self {
        let modules = Arc::new(ModuleTable::default());
        let directories = directories.iter().map(|path| path.to_path_buf()).collect();
        let debug_files = Arc::new(DebugFiles::new(directories, 1 << 20));
        let limits = SymbolLimits {
            memory: 24 << 20,
            lines: false,
            debug_info: 0,
            jvm_perf_map: JvmPerfMap::Off,
            style: NameStyle::Full,
        };
        let metrics = SelfMetrics::new().expect("good names");
        let resolver =
            Resolver::new(modules.clone(), debug_files.clone(), limits, &metrics).expect("a thread");
        let found = fs::metadata(here).expect("it is there");
        let hint = FileHint { device: found.dev(), inode: found.ino() };
        let key = ModuleKey::File { path: path.to_str().expect("UTF-8").into(), hint };
        let id = modules.intern(key, Witness { pid, start: 0, end: 0x1000 });
        Self { modules, debug_files, resolver, path: here.to_owned(), id }
    }

    /// What the resolver says at each of `addresses`.
    fn names(&self, addresses: impl Iterator<Item = u64>) -> Names {
        let (_, image) = open(&self.path);
        let name = |address| {
            let file_offset = file_offset(&image, address);
            let frame = Frame::User { module: self.id, file_offset, guessed: false };
            let symbols = self.resolver.resolve(frame);
            let name = symbols.frames.last().expect("a frame").function.system_name().to_owned();
            (address, symbols.unresolved.map_or(Ok(name), Err))
        };
        addresses.map(name).collect()
    }

    /// Headers of the module's file, its debug file, and the file with its debug information.
    fn find(&self) -> Option<FoundFile> {
        let (file, image) = open(&self.path);
        self.debug_files.find(&self.module(), ElfFile { source: &file, image: &image })
    }

    fn module(&self) -> Module {
        self.modules.get(self.id).expect("it is in the table")
    }

    fn counts(&self) -> DebugFileCounts {
        self.debug_files.counts()
    }
}

fn open(path: &Path) -> (FileAt, ElfImage) {
    let file = FileAt::new(fs::File::open(path).expect("it is there")).expect("a length");
    let image = ElfImage::parse(&file, &ElfLimits::default()).expect("an ELF file");
    (file, image)
}

fn file_offset(image: &ElfImage, address: u64) -> u64 {
    let mut offsets = image.executable_segments().filter_map(|segment| {
        let into = address.checked_sub(segment.address).filter(|&into| into < segment.file_size)?;
        Some(segment.file_offset + into)
    });
    offsets.next().expect("code")
}

/// First and last byte of every function of `path`, which is not stripped.
fn addresses(path: &Path) -> Vec<u64> {
    let (file, image) = open(path);
    let index = FunctionIndex::build(&file, &image, &ElfLimits::default()).expect("an index");
    let ends =
        |function: agent::symbol::elf::SymbolRef| [function.start, function.start + function.size.max(1) - 1];
    index.iter().flat_map(ends).collect()
}

/// A shared library of C++ with functions of every binding and visibility.
fn library(flags: &[&str]) -> Option<Stripped> {
    let tools = ["g++", "objcopy", "strip", "nm", "xz"];
    if !tools.iter().all(|tool| require(tool, is_in_path(tool))) {
        return None;
    }
    let flags = [&["-g", "-shared", "-fPIC"], flags].concat();
    Some(Stripped::new(Workload::plain("g++", "names.cc", "libnames.so", &flags)))
}

/// What a resolver without debug files says of the stripped library, and what is right.
fn before_and_after(library: &Stripped) -> (Names, Names) {
    let addresses = addresses(library.whole());
    let whole = Subject::new(library.whole(), &[]).names(addresses.iter().copied());
    let stripped = Subject::new(library.stripped(), &[]).names(addresses.iter().copied());
    let named = |names: &Names| names.values().filter(|name| name.is_ok()).count();
    println!("{} of {} addresses have a name when stripped", named(&stripped), named(&whole));
    assert!(named(&whole) == addresses.iter().collect::<std::collections::BTreeSet<_>>().len());
    assert!(named(&whole) > 250 && named(&stripped) > 100 && named(&stripped) + 100 < named(&whole));
    assert!(stripped.values().all(|name| name.is_ok() || *name == Err(UnresolvedReason::Stripped)));
    (stripped, whole)
}

/// With its debug file, at any of the places where it may be, a stripped library has every name of the unstripped one.
#[test]
fn a_debug_file_gives_every_name_back() {
    let Some(library) = library(&[]) else { return };
    let (_, whole) = before_and_after(&library);
    let host = tempfile::tempdir().expect("a directory");
    let beside = library.stripped().parent().expect("a directory");
    let places = [
        host.path().join(library.build_id_path()),
        beside.join(library.link_name()),
        beside.join(".debug").join(library.link_name()),
        host.path().join(beside.strip_prefix("/").expect("absolute")).join(library.link_name()),
    ];
    for place in places {
        fs::create_dir_all(place.parent().expect("a directory")).expect("created");
        fs::copy(library.debug(), &place).expect("copied");
        let subject = Subject::new(library.stripped(), &[host.path()]);
        assert_eq!(subject.names(whole.keys().copied()), whole, "{}", place.display());
        assert_eq!(subject.counts(), DebugFileCounts { found: 1, ..DebugFileCounts::default() });
        assert!(subject.resolver.memory_use().index_bytes < 64 << 10);
        fs::remove_file(place).expect("removed");
    }
}

/// MiniDebugInfo, made as RHEL's packages have it, gives a stripped library every name of the unstripped one, and what is kept for
/// it is accounted for. Cut short or changed it costs nothing that the library knows itself, and the reason is said.
#[test]
fn mini_debug_info_gives_every_name_back() {
    let Some(library) = library(&[]) else { return };
    let (stripped, whole) = before_and_after(&library);
    let path = library.with_mini_debug_info();
    let subject = Subject::new(&path, &[]);
    assert_eq!(subject.names(whole.keys().copied()), whole);
    assert_eq!(subject.counts().found, 0);
    let plain = Subject::new(library.stripped(), &[]);
    plain.names(whole.keys().copied());
    let more = subject.resolver.memory_use().index_bytes - plain.resolver.memory_use().index_bytes;
    assert!((1000..32 << 10).contains(&more), "{more} bytes more");

    let good = fs::read(&path).expect("readable");
    let (file, image) = open(&path);
    let section = *image.section_named(&file, ".gnu_debugdata").expect("it is there");
    let start = usize::try_from(section.file_offset).expect("small");
    for at in [0, 20, 1000] {
        let mut bad = good.clone();
        bad[start + at..][..8].fill(0xa5);
        fs::write(&path, bad).expect("written");
        let names = Subject::new(&path, &[]).names(whole.keys().copied());
        let expected = stripped
            .iter()
            .map(|(address, name)| (*address, name.clone().map_err(|_| UnresolvedReason::Malformed)));
        assert_eq!(names, expected.collect(), "changed at {at}");
    }
}

/// A debug file without a matching build id, one whose checksum is wrong where there is no build id, one that is cut short, and what
/// is no file at all are refused; names are then those that the library has itself.
#[test]
fn wrong_debug_files_make_nothing_worse() {
    let Some(library) = library(&[]) else { return };
    let Some(other) = self::library(&["-O1"]) else { return };
    let Some(nameless) = self::library(&["-Wl,--build-id=none"]) else { return };
    let host = tempfile::tempdir().expect("a directory");
    let (stripped, _) = before_and_after(&library);
    let place = host.path().join(library.build_id_path());
    fs::create_dir_all(place.parent().expect("a directory")).expect("created");
    let debug = fs::read(library.debug()).expect("readable");
    let refused = |what: &str, expected: DebugFileCounts| {
        let subject = Subject::new(library.stripped(), &[host.path()]);
        assert_eq!(subject.names(stripped.keys().copied()), stripped, "{what}");
        assert_eq!(subject.counts(), expected, "{what}");
        fs::remove_file(&place).expect("removed");
    };
    let absent = DebugFileCounts { absent: 1, ..DebugFileCounts::default() };
    let of_another = DebugFileCounts { refused: 1, ..absent };
    fs::copy(other.debug(), &place).expect("copied");
    refused("of another build", of_another);
    fs::copy(nameless.debug(), &place).expect("copied");
    refused("without a build id", of_another);
    fs::copy(library.stripped(), &place).expect("copied");
    refused("the stripped file itself", of_another);
    for len in [0, 10, debug.len() / 2, debug.len() - 1] {
        fs::write(&place, &debug[..len]).expect("written");
        refused("cut short", of_another);
    }
    let no_file = DebugFileCounts { unreadable: 1, ..absent };
    nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    refused("a FIFO", no_file);
    symlink("/dev/zero", &place).expect("a link");
    refused("a device", no_file);
    symlink(&place, &place).expect("a link");
    refused("a link to itself", no_file);

    // By link alone, the checksum decides.
    let (stripped, whole) = before_and_after(&nameless);
    let place = nameless.stripped().parent().expect("a directory").join(nameless.link_name());
    fs::copy(nameless.debug(), &place).expect("copied");
    let named = |what: &str, expected: &Names| {
        let subject = Subject::new(nameless.stripped(), &[host.path()]);
        assert_eq!(subject.names(whole.keys().copied()), *expected, "{what}");
    };
    named("the right checksum", &whole);
    let mut file = fs::File::options().append(true).open(&place).expect("writable");
    file.write_all(&[0]).expect("written");
    named("one byte more", &stripped);
    fs::copy(library.debug(), &place).expect("copied");
    named("another file with a build id", &stripped);
}

/// A symbol table that lies about itself in a debug file of the right build costs no name that is known without it.
#[test]
fn corrupt_debug_files_make_nothing_worse() {
    let Some(library) = library(&[]) else { return };
    let host = tempfile::tempdir().expect("a directory");
    let (stripped, whole) = before_and_after(&library);
    let place = host.path().join(library.build_id_path());
    fs::create_dir_all(place.parent().expect("a directory")).expect("created");
    let debug = fs::read(library.debug()).expect("readable");
    let sections_at =
        usize::try_from(u64::from_le_bytes(debug[0x28..0x30].try_into().expect("8"))).expect("small");
    let (_, image) = open(library.debug());
    let symtab = image.sections().iter().position(|section| section.kind.0 == 2).expect("a table");
    // The offset, the size, and the string table of the symbol table.
    for (field, bytes) in [(24, 8), (32, 8), (40, 4)] {
        let mut bad = debug.clone();
        bad[sections_at + symtab * 64 + field..][..bytes].fill(0xff);
        fs::write(&place, bad).expect("written");
        let names = Subject::new(library.stripped(), &[host.path()]).names(whole.keys().copied());
        for (address, name) in &stripped {
            match name {
                Ok(known) => assert_eq!(names[address].as_ref(), Ok(known), "field {field}"),
                Err(_) => assert!(
                    matches!(names[address], Err(UnresolvedReason::Malformed | UnresolvedReason::OverBudget)),
                    "field {field}: {:?}",
                    names[address]
                ),
            }
        }
    }
}

/// A container's own debug file is preferred to the host's, also behind a link that is absolute in the container; where it has
/// none, the host's serves.
#[test]
fn the_process_s_own_root_comes_first() {
    let Some(library) = library(&[]) else { return };
    if !require("root", nix::unistd::Uid::effective().is_root()) || !require("gcc", is_in_path("gcc")) {
        return;
    }
    let (stripped, whole) = before_and_after(&library);
    let host = tempfile::tempdir().expect("a directory");
    let place = host.path().join(library.build_id_path());
    fs::create_dir_all(place.parent().expect("a directory")).expect("created");
    // Told from the container's by what it calls one function.
    run(Command::new("objcopy")
        .arg("--redefine-sym=_ZL12file_local_1i=of_the_host")
        .arg(library.debug())
        .arg(&place));

    let container = tempfile::tempdir().expect("a directory");
    let inside = |path: &str| container.path().join(path);
    fs::create_dir_all(inside("usr/lib/debug/.build-id").join(&library.build_id()[..2])).expect("created");
    fs::create_dir_all(inside("store")).expect("created");
    fs::copy(library.debug(), inside("store/names.debug")).expect("copied");
    symlink("/store/names.debug", inside("usr/lib/debug").join(library.build_id_path())).expect("a link");
    fs::copy(library.stripped(), inside("libnames.so")).expect("copied");
    let wait = Workload::plain("gcc", "wait.c", "wait", &["-static"]);
    fs::copy(wait.program(), inside("wait")).expect("copied");
    let process = Running::start_until_ready(
        Command::new("chroot").arg(container.path()).arg("/wait").stdout(Stdio::piped()),
    );

    let here = inside("libnames.so");
    let subject = || Subject::of_process(&here, "/libnames.so".as_ref(), process.pid(), &[host.path()]);
    let in_container = subject();
    let addresses = || whole.keys().copied();
    assert_eq!(in_container.names(addresses()), whole);
    fs::remove_file(inside("store/names.debug")).expect("removed");
    let names = subject().names(addresses());
    assert!(names.values().any(|name| name.as_deref() == Ok("of_the_host")));
    assert_eq!(names.values().filter(|name| name.is_err()).count(), 0);
    let without = Subject::of_process(&here, "/libnames.so".as_ref(), process.pid(), &[]);
    assert_eq!(without.names(addresses()), stripped);
}

/// A debug file that is closed and then replaced or taken away is refused when it is opened again; one that is untouched reads as
/// before. Whether it was found is remembered.
#[test]
fn a_debug_file_is_opened_again_only_if_it_is_the_same() {
    let Some(library) = library(&[]) else { return };
    let host = tempfile::tempdir().expect("a directory");
    let place = host.path().join(library.build_id_path());
    fs::create_dir_all(place.parent().expect("a directory")).expect("created");
    fs::copy(library.debug(), &place).expect("copied");
    let subject = Subject::new(library.stripped(), &[host.path()]);
    let (first, second) = (subject.find().expect("found"), subject.find().expect("found again"));
    assert_eq!((subject.counts().found, first.file.path()), (1, second.file.path()));
    let module = subject.module();
    let length = || first.file.with(&module, |source| source.len());
    let expected = Ok(fs::metadata(&place).expect("there").len());
    assert_eq!(length(), expected);
    first.file.close();
    assert_eq!(length(), expected);
    first.file.close();
    fs::remove_file(&place).expect("removed");
    assert_eq!(length(), Err(UnresolvedReason::Gone));
    fs::copy(library.debug(), &place).expect("copied");
    assert_eq!(length(), Err(UnresolvedReason::Gone), "another file of the same contents");
    assert!(subject.find().is_some(), "looked for anew");
    fs::remove_file(&place).expect("removed");
    assert!(subject.find().is_none());
    assert_eq!((subject.counts().found, subject.counts().absent), (2, 1));
}

/// A debug file that was found in the root of a process is opened again when that process has ended, if the host has the very
/// file there: most processes share the host's root, and the last that mapped a library is often a short one.
#[test]
fn a_debug_file_outlives_the_process_that_led_to_it() {
    let Some(library) = library(&[]) else { return };
    fs::copy(library.debug(), library.stripped().with_file_name(library.link_name())).expect("copied");
    let wait = Workload::plain("gcc", "wait.c", "wait", &["-static"]);
    let process = Running::start_until_ready(wait.command().stdout(Stdio::piped()));
    let subject = Subject::of_process(library.stripped(), library.stripped(), process.pid(), &[]);
    let found = subject.find().expect("found");
    let module = subject.module();
    let length = || found.file.with(&module, |source| source.len());
    let expected = Ok(fs::metadata(library.debug()).expect("there").len());
    assert_eq!(length(), expected);
    found.file.close();
    drop(process);
    assert_eq!(length(), expected);
    found.file.close();
    fs::remove_file(found.file.path()).expect("removed");
    assert_eq!(length(), Err(UnresolvedReason::Gone));
}

/// Debug information is found in the module itself, in its debug file, or nowhere; a supplementary file by its path and by its
/// build id, and only if that is right.
#[test]
fn debug_information_is_found_wherever_it_is() {
    let Some(library) = library(&[]) else { return };
    let host = tempfile::tempdir().expect("a directory");
    let debug_info = |path: &Path| {
        let subject = Subject::new(path, &[host.path()]);
        let (file, image) = open(path);
        subject.debug_files.debug_info(&subject.module(), ElfFile { source: &file, image: &image })
    };
    assert!(matches!(debug_info(library.whole()), Some(DebugInfo::Own)));
    assert!(debug_info(library.stripped()).is_none());
    let place = host.path().join(library.build_id_path());
    fs::create_dir_all(place.parent().expect("a directory")).expect("created");
    fs::copy(library.debug(), &place).expect("copied");
    assert!(matches!(debug_info(library.stripped()), Some(DebugInfo::Separate(_))));

    let supplement = |link: &str, id: &[u8]| {
        let section = host.path().join("section");
        fs::write(&section, [link.as_bytes(), b"\0", id].concat()).expect("written");
        let linked = host.path().join("linked.so");
        let add = format!("--add-section=.gnu_debugaltlink={}", section.display());
        run(Command::new("objcopy").arg(add).arg(library.stripped()).arg(&linked));
        let subject = Subject::new(&linked, &[host.path()]);
        let (file, image) = open(&linked);
        let of = ElfFile { source: &file, image: &image };
        subject
            .debug_files
            .supplementary(&subject.module(), of, None)
            .map(|found| found.file.path().to_owned())
    };
    let (_, image) = open(library.debug());
    let id = image.build_id().expect("an id").as_bytes();
    fs::copy(library.debug(), host.path().join("shared.dwz")).expect("copied");
    assert_eq!(supplement("shared.dwz", id), Some(host.path().join("shared.dwz")));
    assert_eq!(supplement("nowhere.dwz", id), Some(place));
    assert_eq!(supplement("shared.dwz", &[1; 20]), None);
}
