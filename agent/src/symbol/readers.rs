//! Threads that read foreign files, and are abandoned when a file system does not answer.
//!
//! A read from a FUSE or NFS mount whose server hangs does not return, and no signal ends it. So nobody who must go on reads a
//! foreign file himself: he leaves it to one of these threads. One that is at a piece of work for too long is left alone with it and
//! replaced, up to a bound. What it was reading, and whatever else lies on a file system of that kind, is refused at once until it
//! comes back. Closing a file asks a FUSE server too, and is left to these threads for the same reason.

mod about;
mod schedule;
#[cfg(test)]
mod tests;
mod thread;

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use about::{About, Subject};

use self::schedule::State;
use self::thread::{spawn_reader, watch};

/// Between two looks whether what is waited for was given up.
const GLANCE: Duration = Duration::from_millis(20);

/// How much is left to readers, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderLimits {
    /// Threads that work.
    pub threads: usize,
    /// Threads that may be abandoned at a time; when there are more, they are not replaced.
    pub abandoned: usize,
    /// How long a piece of work may take.
    pub patience: Duration,
    /// Pieces of work that may wait without anybody waiting for them.
    pub queue: usize,
}

/// The work was not done: its file system does not answer, or so many do not that no reader is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file system does not answer")]
pub struct Refused;

/// What readers did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderCounts {
    /// Threads that were abandoned.
    pub abandoned: u64,
    /// Of these, threads that came back.
    pub returned: u64,
    /// Pieces of work that were refused, or dropped before they began, because a file system does not answer.
    pub refused: u64,
}

/// The threads. They end when this is dropped, those that hang excepted.
pub struct Readers(Arc<Shared>);

struct Shared {
    name: &'static str,
    limits: ReaderLimits,
    state: Mutex<State>,
    /// There is work.
    work: Condvar,
    /// Work has begun, after a time without any.
    watch: Condvar,
}

/// A reader at a piece of work.
pub struct Turn<'a> {
    shared: &'a Shared,
    thread: u64,
}

impl Turn<'_> {
    /// Begins the next part of the work, which may take as long again. False when the reader was abandoned meanwhile: nobody waits for
    /// more.
    pub fn goes_on(&self) -> bool {
        let mut state = self.shared.lock();
        let running = state.running.get_mut(&self.thread);
        running.map(|running| running.since = Instant::now()).is_some()
    }
}

impl Readers {
    /// Starts the threads, which are called `name`.
    pub fn start(name: &'static str, limits: ReaderLimits) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name,
            limits,
            state: Mutex::new(State::default()),
            work: Condvar::new(),
            watch: Condvar::new(),
        });
        let readers = Self(shared.clone());
        for _ in 0..limits.threads {
            spawn_reader(&shared, &mut shared.lock())?;
        }
        std::thread::Builder::new().name(format!("{name}-watch")).spawn(move || watch(&shared))?;
        Ok(readers)
    }

    /// Leaves `job` to a reader, unless too much waits already. Never waits.
    pub fn offer(&self, about: About, job: impl FnOnce(&Turn<'_>) + Send + 'static) {
        let is_full = self.0.lock().queued >= self.0.limits.queue;
        if !is_full {
            // It was only an offer.
            let _refused = self.submit(about, job);
        }
    }

    /// Leaves `job` to a reader. Never waits.
    pub fn submit(&self, about: About, job: impl FnOnce(&Turn<'_>) + Send + 'static) -> Result<(), Refused> {
        let mut state = self.0.lock();
        if state.refuses(&about) {
            state.counts.refused += 1;
            return Err(Refused);
        }
        state.enqueue(about, Box::new(job));
        drop(state);
        self.0.work.notify_one();
        Ok(())
    }

    /// Leaves `job` to a reader and waits for what comes out, for as long as the reader is not abandoned.
    pub fn ask<T: Send + 'static>(
        &self,
        about: &About,
        job: impl FnOnce(&Turn<'_>) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let (sender, answer) = sync_channel(1);
        self.submit(about.clone(), move |turn| {
            // Nobody may be waiting any more.
            let _gone = sender.send(job(turn));
        })?;
        self.next(&answer, std::slice::from_ref(about), None).ok_or(Refused)
    }

    /// The next of what jobs about `subjects` send; `None` when no more is to come: all have ended or are not to be waited for, or
    /// it is `deadline`.
    pub fn next<T>(&self, answers: &Receiver<T>, subjects: &[About], deadline: Option<Instant>) -> Option<T> {
        loop {
            match answers.recv_timeout(GLANCE) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let mut state = self.0.lock();
            let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if is_late || subjects.iter().all(|about| state.refuses(about)) {
                drop(state);
                // What came in the meantime counts.
                return answers.try_recv().ok();
            }
        }
    }

    /// Leaves something to a reader that may wait for long, and must be done in the end: closing files.
    pub fn discard(&self, about: About, job: impl FnOnce() + Send + 'static) {
        self.0.lock().discarded.push((about, Box::new(move |_| job())));
        self.0.work.notify_one();
    }

    /// What readers did so far.
    pub fn counts(&self) -> ReaderCounts {
        self.0.lock().counts
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.lock();
            state.closed = true;
            state.ready.clear();
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
        self.0.work.notify_all();
        self.0.watch.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No job runs under the lock, and every change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
