//! Files that grow, shrink, and are written anew or replaced.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use super::*;

const LIMIT: usize = 1 << 20;

struct Case {
    _directory: tempfile::TempDir,
    path: PathBuf,
    source: Source,
}

impl Case {
    fn new(content: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("perf-1.map");
        fs::write(&path, content).expect("written");
        let file = File::open(&path).expect("it is there");
        let mut source = Source::new(MapFormat::PerfMap, "/tmp/perf-1.map".into(), file).expect("a file");
        source.look(LIMIT).expect("readable");
        Self { _directory: directory, path, source }
    }

    fn append(&self, text: &str) {
        let file = File::options().append(true).open(&self.path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("written");
    }

    fn look(&mut self) -> usize {
        self.source.look(LIMIT).expect("readable");
        self.source.len()
    }

    fn name(&self, address: u64) -> Option<String> {
        let place = self.source.find(address)?;
        Some(self.source.name(place).expect("open").expect("readable").text)
    }
}

/// Only what was appended is read, and what comes later wins. A name that was cut is whole later.
#[test]
fn appended_lines_are_taken_in() {
    let mut case = Case::new("1000 10 one\n2000 10 tw");
    assert_eq!([0x1000, 0x2000].map(|at| case.name(at)), [Some("one".into()), Some("tw".into())]);
    let begun = case.source.code.offset();
    assert_eq!(begun, 12, "the line without an end is read again");
    let serial = case.source.serial;
    case.append("o\n1000 10 uno\n");
    assert_eq!(case.look(), 2);
    assert_eq!([0x1000, 0x2000].map(|at| case.name(at)), [Some("uno".into()), Some("two".into())]);
    assert_eq!(case.source.serial, serial, "it was not read from the beginning");
}

/// A file that is cut, written anew (shorter, as long, longer), or replaced by another one is read from its beginning; what
/// the old one told is forgotten, places of names in it included.
#[test]
fn a_file_that_is_written_anew_is_read_anew() {
    for new in ["3000 8 x\n", "3000 10 onf\n", "3000 10 longer\n4000 10 more\n5000 10 and more\n"] {
        for replaced in [false, true] {
            let mut case = Case::new("1000 10 one\n");
            let place = case.source.find(0x1000).expect("it is told");
            if replaced {
                let other = case.path.with_extension("new");
                fs::write(&other, new).expect("written");
                fs::rename(other, &case.path).expect("replaced");
                case.source.reopen(File::open(&case.path).expect("there")).expect("a file");
            } else {
                std::thread::sleep(std::time::Duration::from_millis(20));
                fs::write(&case.path, new).expect("written");
            }
            case.look();
            assert_eq!((case.name(0x1000), case.name(0x3000).is_some()), (None, true), "{new:?}");
            assert!(case.source.name(place).is_none());
        }
    }
}

/// A file that was emptied tells of nothing; one that was closed remembers what it told but not the names.
#[test]
fn emptied_and_closed_files() {
    let mut case = Case::new("1000 10 one\n");
    let file = File::options().write(true).open(&case.path).expect("there");
    file.set_len(0).expect("emptied");
    assert_eq!(case.look(), 0);
    let mut case = Case::new("1000 10 one\n");
    case.source.close();
    assert_eq!(case.look(), 1);
    let place = case.source.find(0x1008).expect("it is told");
    assert!(case.source.name(place).is_none());
    case.source.reopen(File::open(&case.path).expect("there")).expect("a file");
    assert_eq!(case.name(0x1008).as_deref(), Some("one"));
}

/// What is no jitdump is refused once, with the reason in the log, and tells of nothing.
#[test]
fn a_strange_jitdump_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("jit-1.dump");
    fs::write(&path, "this is no jitdump, but it is long enough to be one").expect("written");
    let file = File::open(&path).expect("it is there");
    let mut source = Source::new(MapFormat::Jitdump, "/tmp/jit-1.dump".into(), file).expect("a file");
    source.look(LIMIT).expect("readable");
    assert!(source.is_refused() && source.len() == 0);
}
