//! Readers that hang do so over a channel that nobody writes to, as a read from a file system without a server does.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::*;
use crate::kernel::sideband::record::FileHint;
use crate::process::module::{ModuleKey, ModuleTable, Witness};

const LIMITS: ReaderLimits =
    ReaderLimits { threads: 2, abandoned: 2, patience: Duration::from_millis(200), queue: 100 };

/// Modules by path and device number.
#[derive(Default)]
struct Modules(ModuleTable);

impl Modules {
    fn about(&self, path: &str, major: u32) -> About {
        let hint = FileHint { device: libc::makedev(major, 7), inode: 1 };
        let key = ModuleKey::File { path: path.into(), hint };
        let id = self.0.intern(key, Witness { pid: 1, start: 0, end: 1 });
        About::module(&self.0.get(id).unwrap())
    }
}

/// A job that hangs until its sender is dropped.
fn hang(readers: &Readers, about: &About) -> Sender<()> {
    let (release, released) = channel();
    readers.submit(about.clone(), move |_| assert!(released.recv().is_err())).unwrap();
    release
}

/// A reader that hangs costs the others nothing: what is asked of it is refused, what lies on the same file system too, everything
/// else is answered. When it comes back, so does the file.
#[test]
fn a_reader_that_hangs_is_abandoned() {
    let readers = Readers::start("test", LIMITS).unwrap();
    let modules = Modules::default();
    let [hung, beside] = ["/hung", "/beside"].map(|path| modules.about(path, 0));
    let sound = modules.about("/sound", 8);
    let release = hang(&readers, &hung);
    // It waits behind the one that hangs, and is given up with it.
    assert_eq!(readers.ask(&hung, |_| 1), Err(Refused));
    assert_eq!(readers.ask(&beside, |_| 1), Err(Refused));
    assert_eq!(readers.ask(&sound, |_| 1), Ok(1));
    assert_eq!(readers.counts(), ReaderCounts { abandoned: 1, returned: 0, refused: 2 });
    drop(release);
    while readers.ask(&hung, |_| 2).is_err() {
        thread::sleep(GLANCE);
    }
    assert_eq!(readers.counts().returned, 1);
    assert_eq!(readers.ask(&beside, |_| 3), Ok(3));
}

/// File systems with a block device do not hang as a whole: only the module is refused.
#[test]
fn a_disk_is_not_refused_as_a_whole() {
    let readers = Readers::start("test", LIMITS).unwrap();
    let modules = Modules::default();
    let [hung, beside] = ["/hung", "/beside"].map(|path| modules.about(path, 8));
    let _release = hang(&readers, &hung);
    assert_eq!(readers.ask(&hung, |_| 1), Err(Refused));
    assert_eq!(readers.ask(&beside, |_| 1), Ok(1));
}

/// As many threads as are allowed are abandoned and replaced, then everything is refused at once; and when they come back there are
/// as many as at the beginning.
#[test]
fn abandoned_readers_are_bounded() {
    let readers = Readers::start("test", LIMITS).unwrap();
    let modules = Modules::default();
    let sound = modules.about("/sound", 8);
    let most = LIMITS.threads + LIMITS.abandoned;
    let hung: Vec<_> = (0..most).map(|number| modules.about(&format!("/{number}"), 8)).collect();
    let releases: Vec<_> = hung.iter().map(|about| hang(&readers, about)).collect();
    while readers.counts().abandoned < most as u64 {
        thread::sleep(GLANCE);
    }
    let started = readers.0.lock().next_thread;
    assert_eq!(started, most as u64);
    assert_eq!(readers.ask(&sound, |_| 1), Err(Refused));
    drop(releases);
    while readers.counts().returned < most as u64 {
        thread::sleep(GLANCE);
    }
    assert_eq!(readers.ask(&sound, |_| 1), Ok(1));
    assert_eq!(readers.0.lock().threads, LIMITS.threads);
}

/// What is asked about one module is done one after another in order, about two modules at the same time.
#[test]
fn modules_are_read_in_parallel() {
    let limits = ReaderLimits { patience: Duration::from_mins(1), ..LIMITS };
    let readers = Readers::start("test", limits).unwrap();
    let modules = Modules::default();
    let [one, other] = ["/one", "/other"].map(|path| modules.about(path, 8));
    let (sender, order) = channel();
    let at_work = Arc::new(AtomicUsize::new(0));
    for number in 0..20 {
        let (sender, at_work) = (sender.clone(), at_work.clone());
        let job = move |_: &Turn<'_>| {
            assert_eq!(at_work.fetch_add(1, Ordering::SeqCst), 0);
            thread::yield_now();
            at_work.fetch_sub(1, Ordering::SeqCst);
            sender.send(number).unwrap();
        };
        readers.submit(one.clone(), job).unwrap();
    }
    drop(sender);
    assert_eq!(order.iter().collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    // Each waits for the other: that ends only when both are at work.
    let ((to_one, from_other), (to_other, from_one)) = (channel(), channel());
    readers
        .submit(one, move |_| {
            to_other.send(()).unwrap();
            from_other.recv().unwrap();
        })
        .unwrap();
    readers
        .ask(&other, move |_| {
            from_one.recv().unwrap();
            to_one.send(()).unwrap();
        })
        .unwrap();
}

/// Work in parts may take the patience for each; after it was abandoned it hears of it.
#[test]
fn each_part_has_its_time() {
    let readers = Readers::start("test", LIMITS).unwrap();
    let modules = Modules::default();
    let about = modules.about("/slow", 8);
    let part = LIMITS.patience * 2 / 5;
    let went_on = readers.ask(&about, move |turn| {
        (0..5).all(|_| {
            thread::sleep(part);
            turn.goes_on()
        })
    });
    assert_eq!(went_on, Ok(true));
    let (sender, went_on) = channel();
    let slow = readers.ask(&about, move |turn| {
        while turn.goes_on() {
            thread::sleep(LIMITS.patience * 2);
        }
        sender.send(()).unwrap();
    });
    assert_eq!(slow, Err(Refused));
    went_on.recv().unwrap();
}

/// A job that panics costs nobody else.
#[test]
fn a_job_that_panics_costs_itself() {
    // To say where it panicked takes a while.
    let readers =
        Readers::start("test", ReaderLimits { patience: Duration::from_mins(1), ..LIMITS }).unwrap();
    let other = Modules::default().about("/other", 8);
    let panicked = readers.ask(&other, |_| panic!("a job that panics"));
    assert_eq!(panicked, Err::<(), _>(Refused));
    assert_eq!(readers.ask(&other, |_| 1), Ok(1));
}

/// What is to be closed waits for its file system, and nobody waits for it; what is free is closed at once.
#[test]
fn closing_waits_for_its_file_system() {
    let readers = Readers::start("test", LIMITS).unwrap();
    let modules = Modules::default();
    let [hung, beside] = ["/hung", "/beside"].map(|path| modules.about(path, 0));
    let sound = modules.about("/sound", 8);
    let release = hang(&readers, &hung);
    assert_eq!(readers.ask(&hung, |_| ()), Err(Refused));
    let (sender, closed) = channel();
    for (number, about) in [(1, &hung), (2, &beside), (3, &sound)] {
        let sender = sender.clone();
        readers.discard(about.clone(), move || sender.send(number).unwrap());
    }
    assert_eq!(closed.recv_timeout(Duration::from_mins(1)), Ok(3));
    assert!(closed.recv_timeout(LIMITS.patience).is_err());
    drop(release);
    let rest: HashSet<_> = (0..2).map(|_| closed.recv_timeout(Duration::from_mins(1)).unwrap()).collect();
    assert_eq!(rest, HashSet::from([1, 2]));
}

/// Of what nobody waits for no more is taken than may wait; what somebody waits for is done all the same.
#[test]
fn the_queue_is_bounded() {
    let limits = ReaderLimits { threads: 1, queue: 3, patience: Duration::from_mins(1), ..LIMITS };
    let readers = Readers::start("test", limits).unwrap();
    let about = Modules::default().about("/file", 8);
    let (release, released) = channel::<()>();
    let (begun, has_begun) = channel();
    readers
        .submit(about.clone(), move |_| {
            begun.send(()).unwrap();
            assert!(released.recv().is_err());
        })
        .unwrap();
    has_begun.recv().unwrap();
    let (sender, done) = channel();
    for number in 0..5 {
        let sender = sender.clone();
        readers.offer(about.clone(), move |_| sender.send(number).unwrap());
    }
    // Somebody waits for this.
    readers.submit(about, move |_| sender.send(5).unwrap()).unwrap();
    drop(release);
    assert_eq!(done.iter().collect::<Vec<_>>(), [0, 1, 2, 5]);
}
