//! Asking HotSpot JVMs for their perf map (`jcmd PID Compiler.perfmap`, JDK 17 and later), where the operator wants that.
//!
//! It makes the JVM do something, so it is off by default, and done for one process at a time, at most once a minute each, by a thread of its
//! own: nobody waits for a JVM that does not answer.

mod attach;
mod eligible;
mod identity;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use lru::LruCache;

use crate::symbol::jit::jvm::attach::{AttachError, attach};
use crate::symbol::jit::jvm::eligible::{Ineligible, check};
use crate::symbol::jit::jvm::identity::become_user;
use crate::symbol::jit::lock;
use crate::symbol::jit::process::JitProcess;

/// Whether JVMs are asked for their perf map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum JvmPerfMap {
    /// Never.
    #[default]
    Off,
    /// HotSpot JVMs of version 17 and later, when a sample hits code of theirs that no map names.
    Auto,
}

/// Between two requests to one JVM: it writes down all of its code each time.
const REQUEST_INTERVAL: Duration = Duration::from_mins(1);

/// JVMs of which is remembered when they were asked. It is not kept with what is known of a process, because that may be forgotten to
/// save memory, and the JVM would be asked again too soon.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Requests to JVMs.
#[derive(Debug)]
pub(super) struct PerfMapRequests {
    busy: Arc<AtomicBool>,
    /// By process number and the time at which the process began.
    made: Mutex<LruCache<(u32, u64), Request>>,
}

/// The last request to one process.
#[derive(Debug)]
struct Request {
    at: Instant,
    refused: Arc<AtomicBool>,
}

/// A JVM could not be asked, or has not done what it was asked for.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error(transparent)]
    Ineligible(#[from] Ineligible),
    #[error("cannot take on its user's identity ({0}): give the agent CAP_SETUID and CAP_SETGID")]
    Identity(#[source] std::io::Error),
    #[error(transparent)]
    Attach(#[from] AttachError),
}

impl PerfMapRequests {
    /// `None` where nobody wants them.
    pub(super) fn new(wanted: JvmPerfMap) -> Option<Self> {
        let made = || Mutex::new(LruCache::new(REMEMBERED));
        (wanted == JvmPerfMap::Auto).then(|| Self { busy: Arc::default(), made: made() })
    }

    /// Asks the process for its map if it is a JVM that can be asked, and was not asked lately. Never waits.
    pub(super) fn consider(&self, pid: u32, process: &JitProcess, now: Instant) {
        let Some((libjvm, start_time)) = process.hotspot() else { return };
        let Some(refused) = self.begin((pid, start_time), now) else { return };
        let busy = self.busy.clone();
        // The thread ends with its request: it gives up the agent's identity, and does not take it back.
        let started = thread::Builder::new().name("jvm-perf-map".into()).spawn(move || {
            match request(pid, start_time, &libjvm) {
                Ok(()) => tracing::info!("HotSpot Java process {pid} has written its perf map"),
                Err(error) => {
                    tracing::warn!("HotSpot Java process {pid} gives no perf map: {error}");
                    refused.store(true, Ordering::Relaxed);
                }
            }
            busy.store(false, Ordering::Release);
        });
        if started.is_err() {
            self.busy.store(false, Ordering::Release);
        }
    }

    /// Notes that a request is made to `process` now, if it may be. Where it is to be noted that it was in vain.
    fn begin(&self, process: (u32, u64), now: Instant) -> Option<Arc<AtomicBool>> {
        let mut made = lock(&self.made);
        let may_be = made
            .get(&process)
            .is_none_or(|last| now >= last.at + REQUEST_INTERVAL && !last.refused.load(Ordering::Relaxed));
        if !may_be || self.busy.swap(true, Ordering::AcqRel) {
            return None;
        }
        let refused: Arc<AtomicBool> = Arc::default();
        made.push(process, Request { at: now, refused: refused.clone() });
        Some(refused)
    }
}

fn request(pid: u32, start_time: u64, libjvm: &str) -> Result<(), RequestError> {
    let jvm = check(pid, start_time, libjvm)?;
    become_user(jvm.status.users[1], jvm.status.group).map_err(RequestError::Identity)?;
    Ok(attach(&jvm)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One request at a time, one a minute to the same process, and none after it was in vain; another process with its number is another.
    #[test]
    fn requests_are_limited() {
        assert!(PerfMapRequests::new(JvmPerfMap::Off).is_none());
        let requests = PerfMapRequests::new(JvmPerfMap::Auto).expect("they are wanted");
        let now = Instant::now();
        let done = || requests.busy.store(false, Ordering::Release);
        assert!(requests.begin((1, 7), now).is_some());
        assert!(requests.begin((2, 7), now).is_none(), "one at a time");
        done();
        assert!(requests.begin((1, 7), now + REQUEST_INTERVAL / 2).is_none(), "not so soon");
        assert!(requests.begin((1, 8), now).is_some(), "another one with its number");
        done();
        let refused = requests.begin((1, 7), now + REQUEST_INTERVAL).expect("a minute later");
        refused.store(true, Ordering::Relaxed);
        done();
        assert!(requests.begin((1, 7), now + 5 * REQUEST_INTERVAL).is_none(), "it was in vain");
    }
}
