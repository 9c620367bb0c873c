//! What becomes of processes and modules: whoever keeps something of them is told, and what nobody needs goes.

use std::collections::HashSet;

use super::{BATCH, Collector, Sources};
use crate::process::module::Unneeded;
use crate::process::table::ProcessUpdate;
use crate::profile::windows::Windows;
use crate::table_use::TableUse;

/// Nanoseconds between two looks at what is not needed any more.
const TIDY_INTERVAL: u64 = 10_000_000_000;
/// The same while there is hardly room for another module.
const URGENT_INTERVAL: u64 = 1_000_000_000;

impl Collector {
    /// From time to time: processes whose end nothing told of, and modules that nothing refers to, in `windows` or elsewhere. No
    /// other window may have frames whose names are still to be looked up.
    pub(super) fn tidy(&mut self, windows: &Windows, now: u64) {
        let Self { sources: Sources { processes, resolver, .. }, pending, unneeded, tidied, .. } = self;
        let urgent = processes.modules().is_nearly_full();
        let interval = if urgent { URGENT_INTERVAL } else { TIDY_INTERVAL };
        if now.saturating_sub(*tidied) < interval {
            return;
        }
        *tidied = now;
        if let Err(error) = processes.reconcile(now) {
            tracing::warn!("cannot list /proc: {error}");
        }
        let mut used = HashSet::new();
        processes.add_modules(&mut used);
        pending.add_modules(&mut used);
        windows.add_modules(&mut used);
        let found = processes.modules().retire(&used, now);
        if found == Unneeded::default() {
            return;
        }
        resolver.close(&found.idle);
        if !found.retired.is_empty() {
            resolver.forget(&found.retired.iter().copied().collect());
        }
        unneeded.push_back(found);
    }

    /// How full every table is that grows with what happens on the machine, the windows' excepted.
    pub fn table_uses(&self) -> Vec<TableUse> {
        let Sources { processes, unwinder, resolver, .. } = &self.sources;
        let mut all = vec![processes.table_use(), processes.modules().table_use()];
        all.push(self.pending.table_use(BATCH));
        // Three sets of process ids: no more than there are processes, but for those that the unwinder is not told of yet.
        let told = self.published.len() + self.changed.len() + self.ended.len();
        let budget = (3 * processes.len()).max(told);
        let each = 2 * (size_of::<u32>() + 1);
        let name = "published processes";
        all.push(TableUse { name, entries: told, bytes: told * each, budget: budget * each });
        all.extend(unwinder.table_uses());
        all.extend(resolver.table_uses());
        all
    }

    /// Lets the unwinder know what has become of processes whose mappings it has.
    pub(super) fn pass_on_updates(&mut self) {
        let Self { sources, published, changed, ended, unneeded, .. } = self;
        let Sources { processes, unwinder, .. } = sources;
        for update in processes.take_updates() {
            match update {
                ProcessUpdate::Mappings(pid) if published.contains(&pid) => {
                    changed.insert(pid);
                }
                ProcessUpdate::Ended(pid) if published.remove(&pid) => {
                    changed.remove(&pid);
                    ended.insert(pid);
                }
                ProcessUpdate::Mappings(_) | ProcessUpdate::Ended(_) => {}
            }
        }
        while let Some(found) = unneeded.pop_front() {
            if !unwinder.retire(found.clone()) {
                unneeded.push_front(found);
                break;
            }
        }
        ended.retain(|pid| !unwinder.forget(*pid));
        changed
            .retain(|pid| processes.mappings(*pid).is_some_and(|mappings| !unwinder.update(*pid, mappings)));
    }
}
