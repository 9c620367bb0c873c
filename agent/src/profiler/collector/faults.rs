//! Page faults: what they made resident. The program saw the page before it was mapped; here it is looked at afterwards.

use agent_ebpf::{FaultedPage, about_page};

use super::Collector;
use crate::process::page::{Page, PageKind, PageLooks};
use crate::profile::fault_window::{FaultEffect, Memory};
use crate::profile::windows::Windows;

/// Pages that are looked at once more in a turn, at most: what they teach is about others too.
const MOST_EARLY: usize = 64;

impl Collector {
    /// From now on, page faults' pages are looked at.
    pub fn look_at_pages(&mut self) {
        self.pages = Some(PageLooks::new());
    }

    /// How often a page was looked at.
    pub fn page_looks(&self) -> u64 {
        self.pages.as_ref().map_or(0, PageLooks::looks)
    }

    /// What a sampled fault made resident; `None` when nobody looks, or the record lacks it.
    pub(super) fn effect(&mut self, page: Option<&FaultedPage>) -> Option<FaultEffect> {
        let page = page?;
        let effect = effect_of(page, self.pages.as_mut()?);
        if effect.pages.is_none() && self.early.len() < MOST_EARLY {
            self.early.push(*page);
        }
        Some(effect)
    }

    /// Looks once more at pages that were not there when they were looked at first: making a huge page takes the kernel longer than waking
    /// the agent.
    pub(super) fn look_again(&mut self, windows: &mut Windows) {
        let Some(pages) = self.pages.as_mut() else { return };
        for fault in self.early.drain(..) {
            windows.faults.learn(fault.pid, effect_of(&fault, pages));
        }
    }
}

fn effect_of(fault: &FaultedPage, looks: &mut PageLooks) -> FaultEffect {
    let FaultedPage { pid, address, about, .. } = *fault;
    let is = |bits| about & bits != 0;
    let maybe_huge = is(about_page::MAYBE_HUGE);
    let effect = |memory, pages| FaultEffect { memory, pages: Some(pages), maybe_huge };
    if is(about_page::PRESENT) {
        return effect(Memory::Unchanged, 0);
    }
    // Where the neighbour was there, only this page was mapped.
    let alone = is(about_page::ALONE);
    match looks.page(pid, address) {
        Some(Page { kind: PageKind::Anon, together, .. }) => {
            effect(Memory::Anon, if alone { together } else { 1 })
        }
        Some(page @ Page { kind: kind @ (PageKind::File | PageKind::Shmem), .. }) => {
            let around = alone && !is(about_page::SHARED_WRITE);
            let pages = if around { looks.pages_around(pid, address, page).max(1) } else { 1 };
            effect(if kind == PageKind::File { Memory::File } else { Memory::Shmem }, pages)
        }
        Some(Page { kind: PageKind::Uncounted, .. }) => effect(Memory::Unchanged, 0),
        None => {
            let pages = if maybe_huge { None } else { Some(1) };
            FaultEffect { memory: by_mapping(about), pages, maybe_huge }
        }
    }
}

/// The kind of memory by what the program saw of the mapping.
fn by_mapping(about: u64) -> Memory {
    match about & (about_page::ANON | about_page::FILE | about_page::SHMEM) {
        about_page::ANON => Memory::Anon,
        about_page::FILE => Memory::File,
        about_page::SHMEM => Memory::Shmem,
        _ => Memory::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(address: u64, about: u64) -> FaultedPage {
        FaultedPage { address, about, pid: std::process::id(), ..FaultedPage::default() }
    }

    /// A page that was there makes nothing resident; one that is gone is what its mapping says, of unknown size if it may have been huge.
    #[test]
    fn effects_without_a_look() {
        let mut looks = PageLooks::default();
        let mut effect = |about| effect_of(&fault(1 << 46, about), &mut looks);
        let unchanged = FaultEffect { memory: Memory::Unchanged, pages: Some(0), maybe_huge: false };
        assert_eq!(effect(about_page::PRESENT | about_page::ANON), unchanged);
        for (about, memory) in [
            (about_page::ANON, Memory::Anon),
            (about_page::FILE, Memory::File),
            (about_page::SHMEM, Memory::Shmem),
            (0, Memory::Unknown),
        ] {
            assert_eq!(effect(about), FaultEffect { memory, pages: Some(1), maybe_huge: false });
        }
        let huge = effect(about_page::ANON | about_page::ALONE | about_page::MAYBE_HUGE);
        assert_eq!(huge, FaultEffect { memory: Memory::Anon, pages: None, maybe_huge: true });
    }
}
