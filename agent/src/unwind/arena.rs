//! The arena's keeper: puts rows and mappings where the eBPF unwinder finds them, and makes room.
//!
//! Everything that programs can find is written before it is published, and taken away before it is changed: erased, and
//! used for something else only when no program can be reading it any more ([`Quarantine`]).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use agent_ebpf::SlotUse;
use agent_ebpf::rule::{self, Rule};
use agent_ebpf::tables::{
    HEADER_WORDS, MAPPING_ANONYMOUS, MAPPING_PAGE, MAPPING_WORDS, MAPPINGS, SEARCH_STEPS, Slot, page_key,
    place,
};

use crate::kernel::counters::CounterMap;
use crate::kernel::unwind_tables::{SlotTable, UnwindTables};
use crate::process::mappings::Mapping;
use crate::process::module::ModuleId;
use crate::table_use::TableUse;
use crate::unwind::RuleTable;
use crate::unwind::space::{Extent, Quarantine, Space};

/// How many walks programs have begun and ended. One of them is in each scratch record at a time.
pub trait ProgramRuns: Send {
    /// Walks begun, by scratch record.
    fn begun(&self) -> Vec<u64>;
    /// Walks ended, by scratch record, in the same order.
    fn ended(&self) -> Vec<u64>;
}

impl ProgramRuns for Arc<CounterMap<SlotUse>> {
    fn begun(&self) -> Vec<u64> {
        self.all().map(|slot| slot.begun).collect()
    }

    fn ended(&self) -> Vec<u64> {
        self.all().map(|slot| slot.ended).collect()
    }
}

/// The epoch of what no program has used yet.
const NEVER: u32 = 0;
/// A search of [`SEARCH_STEPS`] steps tells so many entries apart.
const MOST_ENTRIES: usize = (1 << SEARCH_STEPS) - 1;
/// Rows that a text page can have.
const MOST_ROWS: usize = MOST_ENTRIES;
/// The part of the arena that one process's mappings may take.
const PROCESS_SHARE: usize = 32;

/// Why something was not put into the arena. The slow path does without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotInstalled {
    /// Room is being made; it will be there the next time.
    Full,
    /// It does not fit the tables' form.
    TooLarge,
}

/// What lies in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Occupant {
    /// Rows, by [`page_key`].
    Page(u64),
    /// Mappings, by process id.
    Process(u32),
}

/// An occupant's place, and the rules that it refers to.
#[derive(Debug)]
struct Tenancy {
    extent: Extent,
    rules: Vec<u16>,
}

/// What the keeper did so far, and how full the arena is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaUse {
    /// Text pages in the arena.
    pub pages: usize,
    /// Rows in the arena.
    pub rows: u64,
    /// Processes in the arena.
    pub processes: usize,
    /// Bytes of these.
    pub mapping_bytes: usize,
    /// Bytes taken in all, those in quarantine included.
    pub bytes: usize,
    /// Bytes that pages and processes have; the rest of those that are taken is in quarantine.
    pub occupied: usize,
    /// Bytes in all.
    pub capacity: usize,
    /// Rules in use.
    pub rules: usize,
    /// Occupants sent away to make room.
    pub evictions: u64,
    /// Rows whose rule did not fit the rule table; walks that meet one take the slow path.
    pub rules_refused: u64,
}

/// The arena's keeper.
pub struct Arena {
    tables: UnwindTables,
    runs: Box<dyn ProgramRuns>,
    space: Space,
    capacity: usize,
    rules: RuleTable,
    tenants: HashMap<Occupant, Tenancy>,
    quarantine: Quarantine<Tenancy>,
    evictions: u64,
    rules_refused: u64,
}

impl Arena {
    /// The keeper of `tables`, whose arena has `blocks` blocks. `runs` tells what programs are doing.
    pub fn new(tables: UnwindTables, blocks: u32, runs: Box<dyn ProgramRuns>, mut rules: RuleTable) -> Self {
        for (index, rule) in rules.take_changed() {
            tables.write_rule(index, rule);
        }
        // What is used in the first epoch was used later than never.
        tables.begin_epoch();
        let space = Space::new(blocks);
        let capacity = tables.arena.bytes();
        Self {
            tables,
            runs,
            space,
            capacity,
            rules,
            tenants: HashMap::new(),
            quarantine: Quarantine::default(),
            evictions: 0,
            rules_refused: 0,
        }
    }

    /// Whether the rows of text page `page` of `module` are in the arena.
    pub fn has_page(&self, module: ModuleId, page: u32) -> bool {
        self.tenants.contains_key(&Occupant::Page(page_key(module.number(), page)))
    }

    /// The rule at `offset` of text page `page` of `module`, if its rows are in the arena.
    pub fn rule_at(&self, module: ModuleId, page: u32, offset: u16) -> Option<Rule> {
        let tenancy = self.tenants.get(&Occupant::Page(page_key(module.number(), page)))?;
        let row = self.tables.row_not_above(tenancy.extent.first, rule::row(offset, u16::MAX))?;
        self.rules.get(rule::row_rule(row))
    }

    /// Puts the rows of text page `page` of `module` into the arena. Sorted by offset; none is as good as a NONE row.
    pub fn install_page(
        &mut self,
        module: ModuleId,
        page: u32,
        rows: &[(u16, Rule)],
    ) -> Result<(), NotInstalled> {
        let key = page_key(module.number(), page);
        if rows.len() > MOST_ROWS {
            return Err(NotInstalled::TooLarge);
        }
        self.remove(Occupant::Page(key));
        let extent = self.make_room(HEADER_WORDS + rows.len() as u32)?;
        self.write_page(key, extent, rows, self.tables.present_epoch());
        Ok(())
    }

    /// Whether there is room for pages that nobody has missed yet: a quarter is left to those that will be.
    pub fn has_room_to_spare(&self) -> bool {
        self.space.free_runs() > self.space.runs() / 4
    }

    /// [`Self::install_page`] for a page that nobody has missed yet: only into room to spare, and it counts as used longest ago
    /// until a program uses it.
    pub fn install_page_ahead(
        &mut self,
        module: ModuleId,
        page: u32,
        rows: &[(u16, Rule)],
    ) -> Result<(), NotInstalled> {
        let key = page_key(module.number(), page);
        if rows.len() > MOST_ROWS || !self.tables.pages.has_room(key) {
            return Err(NotInstalled::TooLarge);
        }
        self.reclaim();
        if !self.has_room_to_spare() {
            return Err(NotInstalled::Full);
        }
        let extent = self.space.allocate(HEADER_WORDS + rows.len() as u32).ok_or(NotInstalled::Full)?;
        self.write_page(key, extent, rows, NEVER);
        Ok(())
    }

    fn write_page(&mut self, key: u64, extent: Extent, rows: &[(u16, Rule)], hit: u32) {
        let mut used = HashMap::new();
        let mut words = vec![key as u32, (key >> 32) as u32, rows.len() as u32, hit];
        for (offset, rule) in rows {
            let index = self.intern(*rule, &mut used);
            words.push(rule::row(*offset, index));
        }
        for (index, rule) in self.rules.take_changed() {
            self.tables.write_rule(index, rule);
        }
        self.tables.write(extent.first, &words);
        let rules = used.into_values().collect();
        self.publish(Occupant::Page(key), Tenancy { extent, rules }, rows.len() as u32);
    }

    /// Puts the mappings of a process into the arena, sorted by address. `image` tells its address space from the one after
    /// the next exec. What is there already stays.
    pub fn install_process(
        &mut self,
        pid: u32,
        image: u64,
        mappings: &[Mapping],
    ) -> Result<(), NotInstalled> {
        if mappings.len() > self.most_mappings() {
            return Err(NotInstalled::TooLarge);
        }
        let count = mappings.len() as u32;
        let mut words =
            vec![pid, MAPPINGS, count, self.tables.present_epoch(), image as u32, (image >> 32) as u32];
        words.extend(mappings.iter().flat_map(mapping_words));
        let present = self.tenants.get(&Occupant::Process(pid));
        if present.is_some_and(|tenancy| self.tables.holds(tenancy.extent.first, &words)) {
            return Ok(());
        }
        self.remove(Occupant::Process(pid));
        let extent = self.make_room(words.len() as u32)?;
        self.tables.write(extent.first, &words);
        self.publish(Occupant::Process(pid), Tenancy { extent, rules: Vec::new() }, count);
        Ok(())
    }

    /// How many mappings of one process the arena takes: 4,095, which are 96 KiB, where it has 3 MiB or more.
    pub fn most_mappings(&self) -> usize {
        let bytes = self.capacity / PROCESS_SHARE;
        (bytes / (MAPPING_WORDS as usize * size_of::<u32>())).min(MOST_ENTRIES)
    }

    /// Takes a process's mappings out of the arena.
    pub fn remove_process(&mut self, pid: u32) {
        self.remove(Occupant::Process(pid));
    }

    /// Takes the rows of retired modules out of the arena.
    pub fn remove_modules(&mut self, retired: &HashSet<ModuleId>) {
        let numbers: HashSet<u32> = retired.iter().map(|id| id.number()).collect();
        let theirs = |occupant: &&Occupant| match occupant {
            Occupant::Page(key) => numbers.contains(&page_module(*key)),
            Occupant::Process(_) => false,
        };
        let pages: Vec<_> = self.tenants.keys().filter(theirs).copied().collect();
        for page in pages {
            self.remove(page);
        }
    }

    /// Begins a new epoch: what is used from now on counts as younger than what was used before.
    pub fn begin_epoch(&mut self) {
        self.tables.begin_epoch();
        self.reclaim();
    }

    /// How full the arena is.
    pub fn memory_use(&self) -> ArenaUse {
        let pages = self.tenants.keys().filter(|occupant| matches!(occupant, Occupant::Page(_))).count();
        let rows = self.tenants.iter().filter(|(occupant, _)| matches!(occupant, Occupant::Page(_)));
        let rows = rows.map(|(_, tenancy)| u64::from(self.tables.count_at(tenancy.extent.first))).sum();
        let mappings = self.tenants.iter().filter(|(occupant, _)| matches!(occupant, Occupant::Process(_)));
        let mapping_bytes = mappings.map(|(_, tenancy)| tenancy.extent.bytes()).sum();
        ArenaUse {
            pages,
            rows,
            processes: self.tenants.len() - pages,
            mapping_bytes,
            bytes: self.capacity - self.space.free_runs() as usize * Extent { first: 0, runs: 1 }.bytes(),
            occupied: self.tenants.values().map(|tenancy| tenancy.extent.bytes()).sum(),
            capacity: self.capacity,
            rules: self.rules.len(),
            evictions: self.evictions,
            rules_refused: self.rules_refused,
        }
    }

    /// How full the arena and each of the tables is that programs read.
    pub fn table_uses(&self) -> [TableUse; 4] {
        let ArenaUse { pages, processes, bytes, capacity, rules, .. } = self.memory_use();
        let slots = |name, table: &SlotTable| {
            let (entries, slot) = (table.used(), size_of::<Slot>());
            TableUse { name, entries, bytes: entries * slot, budget: table.slots() * slot }
        };
        let rule = size_of::<Rule>() + RuleTable::BYTES_PER_RULE;
        [
            TableUse { name: "unwind arena", entries: pages + processes, bytes, budget: capacity },
            slots("unwind pages", &self.tables.pages),
            slots("unwind processes", &self.tables.processes),
            TableUse {
                name: "unwind rules",
                entries: rules,
                bytes: rules * rule,
                budget: self.rules.capacity() * rule,
            },
        ]
    }

    /// The index of `rule`. `used` holds the rules that the page refers to so far, each of which counts once.
    fn intern(&mut self, rule: Rule, used: &mut HashMap<Rule, u16>) -> u16 {
        if let Some(index) = used.get(&rule) {
            return *index;
        }
        let Some(index) = self.rules.intern(rule) else {
            self.rules_refused += 1;
            return RuleTable::SLOW;
        };
        used.insert(rule, index);
        index
    }

    fn publish(&mut self, occupant: Occupant, tenancy: Tenancy, count: u32) {
        let place = place(tenancy.extent.first, count);
        while let Err(full) = self.table(occupant).publish(key_of(occupant), place) {
            // Eight live keys share the set: the one that was used longest ago has to go.
            let others = full.keys.into_iter().map(|key| match occupant {
                Occupant::Page(_) => Occupant::Page(key),
                Occupant::Process(_) => Occupant::Process(key as u32),
            });
            let Some(oldest) = others.min_by_key(|other| self.last_hit(*other)) else { break };
            self.evictions += 1;
            self.remove(oldest);
        }
        self.tenants.insert(occupant, tenancy);
    }

    fn table(&self, occupant: Occupant) -> &SlotTable {
        match occupant {
            Occupant::Page(_) => &self.tables.pages,
            Occupant::Process(_) => &self.tables.processes,
        }
    }

    fn last_hit(&self, occupant: Occupant) -> u32 {
        self.tenants.get(&occupant).map_or(0, |tenancy| self.tables.last_hit(tenancy.extent.first))
    }

    /// Room for `words` words. When there is none, sends away what was used longest ago, until there will be.
    fn make_room(&mut self, words: u32) -> Result<Extent, NotInstalled> {
        self.reclaim();
        if let Some(extent) = self.space.allocate(words) {
            return Ok(extent);
        }
        // An eighth at a time: eviction is a sweep over all occupants.
        let wanted = (words as usize * 4).max(self.capacity / 8);
        let mut by_age: Vec<_> = self
            .tenants
            .iter()
            .map(|(occupant, tenancy)| {
                (self.tables.last_hit(tenancy.extent.first), *occupant, tenancy.extent.bytes())
            })
            .collect();
        by_age.sort_unstable_by_key(|(hit, _, _)| *hit);
        let mut freed = 0;
        for (_, occupant, bytes) in by_age {
            if freed >= wanted {
                break;
            }
            self.evictions += 1;
            self.remove(occupant);
            freed += bytes;
        }
        self.reclaim();
        self.space.allocate(words).ok_or(NotInstalled::Full)
    }

    fn remove(&mut self, occupant: Occupant) {
        if let Some(tenancy) = self.tenants.remove(&occupant) {
            self.table(occupant).remove(key_of(occupant));
            self.tables.erase_header(tenancy.extent.first);
            self.quarantine.admit(tenancy, self.runs.begun());
        }
    }

    fn reclaim(&mut self) {
        if self.quarantine.is_empty() {
            return;
        }
        for tenancy in self.quarantine.release(&self.runs.ended()) {
            self.space.free(tenancy.extent);
            tenancy.rules.into_iter().for_each(|index| self.rules.release(index));
            // Whoever could have read a row with one of these rules has ended.
            self.rules.reclaim();
        }
    }
}

/// The number of the module in a [`page_key`].
fn page_module(key: u64) -> u32 {
    ((key >> 32) as u32).wrapping_sub(1)
}

fn key_of(occupant: Occupant) -> u64 {
    match occupant {
        Occupant::Page(key) => key,
        Occupant::Process(pid) => u64::from(pid),
    }
}

fn mapping_words(mapping: &Mapping) -> [u32; MAPPING_WORDS as usize] {
    let pages = (mapping.end - mapping.start).div_ceil(MAPPING_PAGE);
    let flags = if mapping.module == ModuleId::ANONYMOUS { MAPPING_ANONYMOUS } else { 0 };
    [
        mapping.start as u32,
        (mapping.start >> 32) as u32,
        u32::try_from(pages).unwrap_or(u32::MAX),
        u32::try_from(mapping.file_offset / MAPPING_PAGE).unwrap_or(0),
        mapping.module.number(),
        flags,
    ]
}

#[cfg(test)]
mod tests;
