//! Which work is next, and which is refused.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::about::{About, Subject};
use super::{ReaderCounts, ReaderLimits, Turn};

/// What was slow and has come back is refused for this many times the patience.
const PENALTY: u32 = 2;

pub(super) type Job = Box<dyn FnOnce(&Turn<'_>) + Send>;

/// Which work waits, who is at what, and who hangs over what.
#[derive(Default)]
pub(super) struct State {
    pub(super) waiting: HashMap<Subject, Waiting>,
    /// Subjects with work that nobody is at.
    pub(super) ready: VecDeque<Subject>,
    pub(super) queued: usize,
    pub(super) discarded: Vec<(About, Job)>,
    pub(super) running: HashMap<u64, Running>,
    stalled: Vec<Stalled>,
    /// Threads that are not abandoned.
    pub(super) threads: usize,
    pub(super) next_thread: u64,
    pub(super) watcher_sleeps: bool,
    pub(super) closed: bool,
    pub(super) counts: ReaderCounts,
}

pub(super) struct Waiting {
    about: About,
    jobs: VecDeque<Job>,
}

pub(super) struct Running {
    about: About,
    pub(super) since: Instant,
}

/// What does not answer, or did not until lately.
pub(super) struct Stalled {
    about: About,
    thread: u64,
    /// When its penalty ends; `None` while the thread hangs.
    until: Option<Instant>,
}

impl State {
    pub(super) fn enqueue(&mut self, about: About, job: Job) {
        let subject = about.subject;
        self.queued += 1;
        if let Some(waiting) = self.waiting.get_mut(&subject) {
            waiting.jobs.push_back(job);
            return;
        }
        self.waiting.insert(subject, Waiting { about, jobs: VecDeque::from([job]) });
        if !self.running.values().any(|running| running.about.subject == subject) {
            self.ready.push_back(subject);
        }
    }

    pub(super) fn refuses(&mut self, about: &About) -> bool {
        self.forget_penalties();
        self.threads == 0 || self.is_stalled(about)
    }

    fn is_stalled(&self, about: &About) -> bool {
        let hangs = |stalled: &Stalled| {
            let same_place = stalled.until.is_none() && about.device.is_some();
            stalled.about.subject == about.subject || same_place && stalled.about.device == about.device
        };
        self.stalled.iter().any(hangs)
    }

    fn forget_penalties(&mut self) {
        if self.stalled.is_empty() {
            return;
        }
        let now = Instant::now();
        self.stalled.retain(|stalled| stalled.until.is_none_or(|until| until > now));
    }

    /// The next piece of work for a thread; what is not to be done any more goes into `dropped`.
    pub(super) fn take(&mut self, thread: u64, dropped: &mut Vec<Job>) -> Option<Job> {
        self.forget_penalties();
        let taken = self.take_discarded().or_else(|| self.take_ready(dropped));
        let (about, job) = taken?;
        self.running.insert(thread, Running { about, since: Instant::now() });
        Some(job)
    }

    fn take_discarded(&mut self) -> Option<(About, Job)> {
        let is_free = |(about, _): &(About, Job)| {
            !self.is_stalled(about)
                && !self.running.values().any(|running| running.about.subject == about.subject)
        };
        let index = self.discarded.iter().position(is_free)?;
        Some(self.discarded.swap_remove(index))
    }

    fn take_ready(&mut self, dropped: &mut Vec<Job>) -> Option<(About, Job)> {
        while let Some(subject) = self.ready.pop_front() {
            // Whoever is at it puts it back.
            if self.running.values().any(|running| running.about.subject == subject) {
                continue;
            }
            let Some(waiting) = self.waiting.get_mut(&subject) else { continue };
            let about = waiting.about.clone();
            if self.is_stalled(&about) {
                self.drop_waiting(subject, dropped);
                continue;
            }
            let Some(waiting) = self.waiting.get_mut(&subject) else { continue };
            let job = waiting.jobs.pop_front();
            if waiting.jobs.is_empty() {
                self.waiting.remove(&subject);
            }
            if let Some(job) = job {
                self.queued -= 1;
                return Some((about, job));
            }
        }
        None
    }

    fn drop_waiting(&mut self, subject: Subject, dropped: &mut Vec<Job>) {
        if let Some(Waiting { jobs, .. }) = self.waiting.remove(&subject) {
            self.queued -= jobs.len();
            self.counts.refused += jobs.len() as u64;
            dropped.extend(jobs);
        }
    }

    /// What a thread has begun is done. False when it was abandoned meanwhile.
    pub(super) fn end(&mut self, thread: u64) -> bool {
        let Some(Running { about, .. }) = self.running.remove(&thread) else { return false };
        // Other subjects come first.
        if self.waiting.contains_key(&about.subject) {
            self.ready.push_back(about.subject);
        }
        true
    }

    /// Abandons the threads that are at something for longer than `patience`; how many.
    pub(super) fn abandon(&mut self, patience: Duration, dropped: &mut Vec<Job>) -> usize {
        let is_late = |_: &u64, running: &mut Running| running.since.elapsed() >= patience;
        let late: Vec<_> = self.running.extract_if(is_late).collect();
        for (thread, Running { about, .. }) in &late {
            tracing::warn!(
                path = &*about.path,
                pid = about.pid,
                "a file system does not answer: files there are not read until it does"
            );
            self.drop_waiting(about.subject, dropped);
            self.stalled.push(Stalled { about: about.clone(), thread: *thread, until: None });
        }
        self.threads -= late.len();
        self.counts.abandoned += late.len() as u64;
        late.len()
    }

    /// An abandoned thread has come back. Whether it is needed.
    pub(super) fn take_back(&mut self, thread: u64, limits: &ReaderLimits) -> bool {
        if let Some(stalled) = self.stalled.iter_mut().find(|stalled| stalled.thread == thread) {
            stalled.until = Some(Instant::now() + limits.patience * PENALTY);
            tracing::info!(
                path = &*stalled.about.path,
                pid = stalled.about.pid,
                "a file system answers again"
            );
        }
        self.counts.returned += 1;
        let needed = self.threads < limits.threads;
        self.threads += usize::from(needed);
        needed
    }

    pub(super) fn hanging(&self) -> usize {
        self.stalled.iter().filter(|stalled| stalled.until.is_none()).count()
    }
}
