//! Waits of one kind each, over and over, until it is killed: `./locks MODE`. Says "ready". The thread called "waiter" waits in
//! `wait_for_it`, and does nothing else there; another lets it wait for milliseconds.

use std::sync::{Arc, Barrier, Condvar, Mutex, Once, RwLock};
use std::thread::{self, Thread};
use std::time::Duration;

/// What is waited for.
struct Locks {
    start: Barrier,
    mutex: Mutex<()>,
    rwlock: RwLock<()>,
    /// Whether something was said.
    said: Mutex<bool>,
    condition: Condvar,
    barrier: Barrier,
    once: Mutex<Arc<Once>>,
}

/// The wait.
#[inline(never)]
fn wait_for_it(mode: &str, locks: &Locks) {
    match mode {
        "mutex" => drop(std::hint::black_box(locks.mutex.lock())),
        "reader" => drop(std::hint::black_box(locks.rwlock.read())),
        "writer" => drop(std::hint::black_box(locks.rwlock.write())),
        "barrier" => drop(std::hint::black_box(locks.barrier.wait())),
        "park" => thread::park(),
        "scope" => thread::scope(|scope| drop(scope.spawn(brief))),
        "join" => thread::spawn(brief).join().unwrap(),
        _ => unreachable!(),
    }
    std::hint::black_box(locks);
}

/// The same for what a thread has to have before.
#[inline(never)]
fn wait_for_it_with(locks: &Locks) {
    let mut said = locks.said.lock().unwrap();
    while !*said {
        said = locks.condition.wait(said).unwrap();
    }
    *said = false;
}

/// The same for what is there once.
#[inline(never)]
fn wait_for_it_once(once: &Once) {
    once.call_once(brief);
    std::hint::black_box(once);
}

fn brief() {
    thread::sleep(Duration::from_millis(5));
}

fn waiter(mode: &str, locks: &Locks) -> ! {
    loop {
        thread::sleep(Duration::from_micros(500));
        locks.start.wait();
        match mode {
            "condition" => wait_for_it_with(locks),
            "once" => {
                let once = locks.once.lock().unwrap().clone();
                thread::sleep(Duration::from_millis(1));
                wait_for_it_once(&once);
            }
            _ => {
                thread::sleep(Duration::from_millis(1));
                wait_for_it(mode, locks);
            }
        }
    }
}

fn let_it_wait(mode: &str, locks: &Locks, waiter: &Thread) {
    let once = Arc::new(Once::new());
    *locks.once.lock().unwrap() = once.clone();
    locks.start.wait();
    match mode {
        "mutex" => {
            let _held = locks.mutex.lock();
            brief();
        }
        "reader" => {
            let _held = locks.rwlock.write();
            brief();
        }
        "writer" => {
            let _held = locks.rwlock.read();
            brief();
        }
        "condition" => {
            brief();
            *locks.said.lock().unwrap() = true;
            locks.condition.notify_one();
        }
        "barrier" => {
            brief();
            locks.barrier.wait();
        }
        "park" => {
            brief();
            waiter.unpark();
        }
        "once" => once.call_once(brief),
        _ => {}
    }
}

fn main() {
    let mode = std::env::args().nth(1).expect("a mode");
    let locks = Arc::new(Locks {
        start: Barrier::new(2),
        mutex: Mutex::default(),
        rwlock: RwLock::default(),
        said: Mutex::default(),
        condition: Condvar::new(),
        barrier: Barrier::new(2),
        once: Mutex::new(Arc::new(Once::new())),
    });
    let (theirs, their_mode) = (locks.clone(), mode.clone());
    let named = thread::Builder::new().name("waiter".to_owned());
    let thread = named.spawn(move || waiter(&their_mode, &theirs)).expect("a thread");
    println!("ready");
    loop {
        let_it_wait(&mode, &locks, thread.thread());
    }
}
