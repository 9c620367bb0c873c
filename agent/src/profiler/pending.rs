//! Samples whose user stack is being finished.

use std::collections::{HashMap, HashSet};

use agent_ebpf::{MAX_KERNEL_FRAMES, MAX_USER_FRAMES, SLICE_BYTES, SampleHeader};

use crate::process::mappings::Mappings;
use crate::process::module::ModuleId;
use crate::profile::fault_window::FaultEffect;
use crate::profile::stack_table::Task;
use crate::table_use::TableUse;
use crate::unwind::unwinder::QUEUE;

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
    /// Of a page fault: what it made resident.
    pub(super) fault: Option<FaultEffect>,
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

    /// Adds the modules that the samples' addresses may turn out to lie in to `used`.
    pub(super) fn add_modules(&self, used: &mut HashSet<ModuleId>) {
        for mappings in self.waiting.values().filter_map(|pending| pending.mappings.as_ref()) {
            used.extend(mappings.iter().map(|mapping| mapping.module));
        }
    }

    /// How full the table and the unwinder's queue are, if `batch` samples may be finished before anybody looks. What the samples'
    /// mappings share with the process table's is counted there.
    pub(super) fn table_use(&self, batch: usize) -> TableUse {
        /// Addresses of a record, and its share of a hash table.
        const EACH: usize = 2 * size_of::<(u64, Pending)>() + (MAX_KERNEL_FRAMES + MAX_USER_FRAMES) * 8;
        let entries = self.waiting.len();
        let bytes = |waiting: usize| waiting * EACH + waiting.min(QUEUE) * SLICE_BYTES;
        TableUse { name: "waiting samples", entries, bytes: bytes(entries), budget: bytes(QUEUE + batch) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
