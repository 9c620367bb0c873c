//! Maps of processes that run: found, believed or not, followed, and kept apart.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{chown, symlink};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use super::*;

const BUDGET: usize = 1 << 20;

/// A process, and where its perf map belongs.
struct Case {
    child: Child,
    map: PathBuf,
    names: JitNames,
    began: Instant,
}

impl Case {
    fn new() -> Self {
        let child = Command::new("sleep").arg("1000").spawn().expect("a child");
        let map = PathBuf::from(format!("/tmp/perf-{}.map", child.id()));
        Self { child, map, names: JitNames::new(BUDGET, JvmPerfMap::Off), began: Instant::now() }
    }

    fn with(map: &str) -> Self {
        let case = Self::new();
        fs::write(&case.map, map).expect("written");
        case
    }

    fn id(&self) -> JitProcessId {
        JitProcessId { pid: self.child.id(), image: 7 }
    }

    fn append(&self, text: &str) {
        let file = fs::File::options().create(true).append(true).open(&self.map);
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("written");
    }

    /// What is said of `address` so many seconds after the beginning.
    fn find(&self, address: u64, seconds: u64) -> Result<String, UnresolvedReason> {
        let now = self.began + Duration::from_secs(seconds);
        self.names.find_at(self.id(), address, now).map(|name| name.name().to_owned())
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        // It may have ended, and the map may be gone.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        let _removed = fs::remove_file(&self.map);
    }
}

/// A map that is there from the beginning gives names, with the text that stood there; what it does not tell of has a reason.
#[test]
fn a_map_gives_names() {
    let case = Case::with("0x1000 0x10 long Burn.hot(long)\n2000 10 JS:*f /a.js:1:1\n");
    let name = case.names.find(case.id(), 0x1008).expect("it is told");
    let expected = FunctionName::new("Burn.hot", "long Burn.hot(long)");
    assert_eq!(name, expected);
    assert_eq!(case.names.find(case.id(), 0x1008), Ok(name), "from the cache as well");
    assert_eq!(case.find(0x2000, 0), Ok("f /a.js:1:1".into()));
    assert_eq!(case.find(0x3000, 0), Err(UnresolvedReason::JitWithoutMap));
    assert!(case.names.memory_use().bytes > 0);
}

/// A map that comes late, and grows, is read at the next look; code that is replaced has its new name then, also where the old one
/// was asked for before.
#[test]
fn a_map_that_comes_late_and_grows() {
    let case = Case::new();
    assert_eq!(case.find(0x1000, 0), Err(UnresolvedReason::Anonymous));
    case.append("1000 10 old\n");
    assert_eq!(case.find(0x1000, 0), Err(UnresolvedReason::Anonymous), "looks are a second apart");
    assert_eq!(case.find(0x1000, 1), Ok("old".into()));
    case.append("1000 10 new\n2000 10 more\n");
    assert_eq!(case.find(0x1000, 2), Ok("new".into()));
    assert_eq!(case.find(0x2000, 2), Ok("more".into()));
    fs::write(&case.map, "3000 10 anew\n").expect("written");
    assert_eq!(case.find(0x3000, 3), Ok("anew".into()));
    assert_eq!(case.find(0x1000, 3), Err(UnresolvedReason::JitWithoutMap));
}

/// A process that has ended keeps the names that its map told, as long as the map is open; nothing new is learnt, and another process with
/// its number is not taken for it.
#[test]
fn names_outlive_the_process() {
    let mut case = Case::with("1000 10 told\n");
    assert_eq!(case.find(0x1000, 0), Ok("told".into()));
    case.child.kill().expect("it runs");
    case.child.wait().expect("it has ended");
    assert_eq!(case.find(0x1008, 5), Ok("told".into()));
    let late = JitProcessId { pid: case.child.id(), image: 8 };
    assert_eq!(case.names.find(late, 0x1000).map(drop), Err(UnresolvedReason::Gone));
}

/// One number, two processes: the second has its own map and gets no name of the first's.
#[test]
fn a_number_that_is_used_again() {
    let case = Case::with("1000 10 first\n2000 10 only_first\n");
    assert_eq!(case.find(0x1000, 0), Ok("first".into()));
    let names = &case.names;
    {
        // Another start time stands for another process with the same number.
        let entry = names.process(case.id());
        lock(&entry).pretend_to_have_begun_earlier();
    }
    fs::write(&case.map, "1000 10 second\n").expect("written");
    let second = JitProcessId { image: 8, ..case.id() };
    let now = case.began + Duration::from_secs(5);
    assert_eq!(names.find_at(second, 0x1000, now).map(|name| name.name().to_owned()), Ok("second".into()));
    assert_eq!(names.find_at(second, 0x2000, now).map(drop), Err(UnresolvedReason::JitWithoutMap));
    assert_ne!(case.find(0x1000, 5), Ok("second".into()), "what was the first is not the second");
}

/// A map that somebody else owns, a link, a FIFO and a directory are refused, and none of them blocks.
#[test]
fn what_is_not_the_process_own_map_is_refused() {
    let refused = |case: &Case| assert_eq!(case.find(0x1000, 0), Err(UnresolvedReason::Unreadable));
    let case = Case::new();
    symlink("/etc/passwd", &case.map).expect("a link");
    refused(&case);
    let case = Case::new();
    nix::unistd::mkfifo(&case.map, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    refused(&case);
    let case = Case::new();
    fs::create_dir(&case.map).expect("a directory");
    refused(&case);
    fs::remove_dir(&case.map).expect("removed");
    if nix::unistd::Uid::effective().is_root() {
        let case = Case::with("1000 10 forged\n");
        chown(&case.map, Some(65_534), None).expect("root may");
        refused(&case);
        chown(&case.map, Some(0), None).expect("root may");
        assert_eq!(case.find(0x1000, 1), Ok("forged".into()), "it may come to belong to the process");
    }
}

/// Hostile maps do not pass the budget, nor make other processes' names disappear for good.
#[test]
fn the_budget_holds() {
    let names = JitNames::new(256 << 10, JvmPerfMap::Off);
    let lines = (0..50_000).map(|at| format!("{:x} 8 function_{at}\n", 0x1000 + at * 16));
    let map = lines.collect::<Vec<_>>().concat();
    let cases: Vec<_> = (0..4).map(|_| Case::with(&map)).collect();
    for case in cases.iter().chain(&cases) {
        assert_eq!(names.find(case.id(), 0x1000).map(|name| name.name().to_owned()), Ok("function_0".into()));
        assert!(names.memory_use().bytes <= 256 << 10);
    }
}

/// More processes than files may be open at once: all have names, and no more than so many files are open.
#[test]
fn few_maps_are_open_at_once() {
    let names = JitNames::new(BUDGET, JvmPerfMap::Off);
    let cases: Vec<_> = (0..OPEN_PROCESSES.get() + 4).map(|_| Case::with("1000 10 a\n2000 10 b\n")).collect();
    for address in [0x1000, 0x2000] {
        for case in &cases {
            assert!(names.find(case.id(), address).is_ok());
        }
    }
    let open = fs::read_dir("/proc/self/fd").expect("there").filter(|link| {
        let target = link.as_ref().ok().and_then(|link| fs::read_link(link.path()).ok());
        target.is_some_and(|target| cases.iter().any(|case| case.map == target))
    });
    assert_eq!(open.count(), OPEN_PROCESSES.get());
}
