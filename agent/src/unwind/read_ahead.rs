//! Reading ahead: rows of pages near one that was missed, before they are missed themselves.
//!
//! A large program with a flat profile, a compiler say, has twenty frames a stack in two thousand pages: with nothing but what
//! was missed in the arena, a third of its walks would be left to the agent after ten seconds still. The more misses a module
//! has had, the more of it is built at each: a module that is met once costs a page, one that is met all over is
//! soon there as a whole. What is read ahead takes room that is free and sends nobody away; it is the first to go.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;

use lru::LruCache;

use crate::process::module::ModuleId;
use crate::unwind::arena::Arena;
use crate::unwind::module_cfi::ModuleCfiCache;

/// Modules whose misses are remembered.
const MODULES: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Most pages that are built because of one miss: a MiB of code.
const MAX_WINDOW: u32 = 64;
/// Misses whose neighbourhoods wait to be built; of more, the oldest are forgotten.
const QUEUE: usize = 256;

/// What is to be read ahead.
pub struct ReadAhead {
    misses: LruCache<ModuleId, u32>,
    windows: VecDeque<Window>,
}

/// Pages around one that was missed.
struct Window {
    module: ModuleId,
    center: u32,
    /// How far from the centre everything is there.
    done: u32,
    /// How many more are to be built.
    left: u32,
}

impl Default for ReadAhead {
    fn default() -> Self {
        Self { misses: LruCache::new(MODULES), windows: VecDeque::with_capacity(QUEUE) }
    }
}

impl ReadAhead {
    /// A walk missed `page` of `module`; it is there by now.
    pub fn missed(&mut self, module: ModuleId, page: u32) {
        let misses = self.misses.get_or_insert_mut(module, || 0);
        *misses = misses.saturating_add(1);
        let left = (*misses - 1).min(MAX_WINDOW);
        if left == 0 {
            return;
        }
        if self.windows.len() == QUEUE {
            self.windows.pop_front();
        }
        self.windows.push_back(Window { module, center: page, done: 0, left });
    }

    /// Forgets modules that nothing refers to any more.
    pub fn forget(&mut self, retired: &[ModuleId]) {
        for id in retired {
            self.misses.pop(id);
        }
        self.windows.retain(|window| !retired.contains(&window.module));
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.windows.is_empty()
    }

    /// Builds a page at most. False when there was nothing to build.
    pub fn step(&mut self, arena: &mut Arena, modules: &ModuleCfiCache) -> bool {
        if !arena.has_room_to_spare() {
            self.windows.clear();
        }
        while let Some(window) = self.windows.front_mut() {
            let module = window.module;
            let Some(code) = modules.code_pages(module) else {
                self.windows.pop_front();
                continue;
            };
            let absent = |page| !arena.has_page(module, page);
            let Some(page) = window.next(&code, absent) else {
                self.windows.pop_front();
                continue;
            };
            // A page that cannot be built is reported when a walk misses it.
            let Ok(built) = modules.ask(module, move |cfi| cfi.page(page)) else {
                // A walk that misses the page tries again, when the file system answers.
                self.windows.pop_front();
                continue;
            };
            let rows = built.and_then(Result::ok).map(|page| page.rows).unwrap_or_default();
            // What is refused is built again when a walk misses it.
            let _refused = arena.install_page_ahead(module, page, &rows);
            return true;
        }
        false
    }
}

impl Window {
    /// The nearest page of `code` that is `absent`.
    fn next(&mut self, code: &[RangeInclusive<u32>], absent: impl Fn(u32) -> bool) -> Option<u32> {
        let first = *code.iter().map(RangeInclusive::start).min()?;
        let last = *code.iter().map(RangeInclusive::end).max()?;
        let farthest = self.center.saturating_sub(first).max(last.saturating_sub(self.center));
        self.left = self.left.checked_sub(1)?;
        while self.done < farthest {
            let distance = self.done + 1;
            let neighbours = [self.center.checked_add(distance), self.center.checked_sub(distance)];
            let is_wanted = |page: &u32| code.iter().any(|pages| pages.contains(page)) && absent(*page);
            if let Some(page) = neighbours.into_iter().flatten().find(is_wanted) {
                return Some(page);
            }
            self.done = distance;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashSet;

    use super::*;

    fn module() -> ModuleId {
        use crate::process::module::{ModuleKey, ModuleTable, Witness};
        ModuleTable::default().intern(ModuleKey::Vdso, Witness { pid: 1, start: 0, end: 1 })
    }

    /// The nearest absent pages come first, on both sides, and only pages with code; then there is an end.
    #[test]
    fn the_nearest_pages_come_first() {
        let present = RefCell::new(HashSet::from([10, 11]));
        let mut window = Window { module: module(), center: 10, done: 0, left: 5 };
        let mut next = || {
            let page = window.next(&[8..=12, 20..=21], |page| !present.borrow().contains(&page))?;
            present.borrow_mut().insert(page);
            Some(page)
        };
        let built: Vec<_> = std::iter::from_fn(&mut next).collect();
        assert_eq!(built, [9, 12, 8, 20, 21]);
        assert_eq!(next(), None, "as many as were asked for");
    }

    /// The first miss of a module reads nothing ahead, each further one more than the one before, up to a bound; and what waits
    /// is bounded too.
    #[test]
    fn windows_grow_with_misses() {
        let mut ahead = ReadAhead::default();
        ahead.missed(module(), 0);
        assert!(ahead.is_idle());
        for page in 1..1000 {
            ahead.missed(module(), page);
            let newest = ahead.windows.back().map(|window| (window.center, window.left));
            assert_eq!(newest, Some((page, page.min(MAX_WINDOW))));
        }
        assert_eq!(ahead.windows.len(), QUEUE);
    }
}
