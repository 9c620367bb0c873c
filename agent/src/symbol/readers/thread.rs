//! The threads: those that work, and the one that abandons them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::{io, thread};

use super::schedule::{Job, State};
use super::{GLANCE, ReaderLimits, Shared, Turn};

/// Starts a thread that works.
pub(super) fn spawn_reader(shared: &Arc<Shared>, state: &mut State) -> io::Result<()> {
    let thread = state.next_thread;
    let of_thread = shared.clone();
    thread::Builder::new().name(shared.name.into()).spawn(move || read(&of_thread, thread))?;
    state.next_thread += 1;
    state.threads += 1;
    Ok(())
}

fn read(shared: &Shared, thread: u64) {
    let mut dropped = Vec::new();
    let mut state = shared.lock();
    while !state.closed {
        let Some(job) = state.take(thread, &mut dropped) else {
            state = wait(shared, state, &mut dropped);
            continue;
        };
        if std::mem::take(&mut state.watcher_sleeps) {
            shared.watch.notify_one();
        }
        drop(state);
        dropped.clear();
        // What is read was written by strangers. Nothing known makes a job panic; if something does, it costs this job.
        if catch_unwind(AssertUnwindSafe(|| job(&Turn { shared, thread }))).is_err() {
            tracing::error!("a reader has failed at a file: this is a mistake in the agent");
        }
        state = shared.lock();
        if !state.end(thread) && !state.take_back(thread, &shared.limits) {
            return;
        }
    }
}

/// Waits for work; no longer than until something that is refused may be tried again.
fn wait<'a>(
    shared: &'a Shared,
    state: MutexGuard<'a, State>,
    dropped: &mut Vec<Job>,
) -> MutexGuard<'a, State> {
    if !dropped.is_empty() {
        drop(state);
        dropped.clear();
        return shared.lock();
    }
    let waited = if state.discarded.is_empty() {
        shared.work.wait(state)
    } else {
        shared.work.wait_timeout(state, shared.limits.patience).map(|(state, _)| state).map_err(|error| {
            let (state, _) = error.into_inner();
            PoisonError::new(state)
        })
    };
    waited.unwrap_or_else(PoisonError::into_inner)
}

/// Abandons readers that hang, and replaces them.
pub(super) fn watch(shared: &Arc<Shared>) {
    let ReaderLimits { patience, abandoned, .. } = shared.limits;
    let mut dropped = Vec::new();
    let mut state = shared.lock();
    while !state.closed {
        let late = state.abandon(patience, &mut dropped);
        for _ in 0..late {
            if state.hanging() > abandoned {
                tracing::warn!(abandoned, "too many readers hang: this one is not replaced");
            } else if let Err(error) = spawn_reader(shared, &mut state) {
                tracing::warn!(%error, "cannot replace a reader that hangs");
            }
        }
        if !dropped.is_empty() {
            drop(state);
            dropped.clear();
            state = shared.lock();
            continue;
        }
        let oldest = state.running.values().map(|running| running.since).min();
        state = if let Some(oldest) = oldest {
            let left = patience.saturating_sub(oldest.elapsed()).max(GLANCE);
            shared.watch.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
        } else {
            state.watcher_sleeps = true;
            shared.watch.wait(state).unwrap_or_else(PoisonError::into_inner)
        };
    }
}
