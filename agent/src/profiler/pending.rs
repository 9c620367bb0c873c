//! Samples whose user stack is being finished.

use std::collections::HashMap;

use agent_ebpf::SampleHeader;

use crate::process::mappings::Mappings;
use crate::profile::window::Task;

/// A sample that waits for its user stack.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// The record's header.
    pub(super) header: SampleHeader,
    /// Whose sample it is.
    pub(super) task: Task,
    /// Kernel addresses, leaf first.
    pub(super) kernel: Vec<u64>,
    /// User addresses that the program found, leaf first.
    pub(super) user: Vec<u64>,
    /// The process's mappings when the sample was read; `None` when nothing is known of it.
    pub(super) mappings: Option<Mappings>,
}

/// The waiting samples, by a token that goes with the request. The unwinder's queue bounds them.
#[derive(Debug, Default)]
pub(super) struct PendingWalks {
    waiting: HashMap<u64, Pending>,
    next: u64,
}

impl PendingWalks {
    pub(super) fn add(&mut self, pending: Pending) -> u64 {
        let token = self.next;
        self.next += 1;
        self.waiting.insert(token, pending);
        token
    }

    pub(super) fn take(&mut self, token: u64) -> Option<Pending> {
        self.waiting.remove(&token)
    }

    pub(super) fn take_all(&mut self) -> Vec<Pending> {
        self.waiting.drain().map(|(_, pending)| pending).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
