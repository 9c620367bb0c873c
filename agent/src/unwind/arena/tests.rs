use std::sync::Mutex;
use std::sync::atomic::Ordering;

use agent_ebpf::rule::{TEXT_PAGE, kind};
use agent_ebpf::tables::{
    BLOCK_WORDS, HEADER_COUNT, MAX_RULES, PAGE_SLOTS, PROCESS_SLOTS, SET_SLOTS, Slot, set_of,
};

use super::*;
use crate::kernel::shared_array::SharedArray;
use crate::process::module::{ModuleKey, ModuleTable, Witness};

/// Programs as a test says: begun and ended runs of one CPU.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<(u64, u64)>>);

impl Runs {
    fn set(&self, begun: u64, ended: u64) {
        *self.0.lock().expect("not poisoned") = (begun, ended);
    }
}

impl ProgramRuns for Runs {
    fn begun(&self) -> Vec<u64> {
        vec![self.0.lock().expect("not poisoned").0]
    }

    fn ended(&self) -> Vec<u64> {
        vec![self.0.lock().expect("not poisoned").1]
    }
}

fn tables(blocks: u32) -> UnwindTables {
    let memory = |bytes: usize| SharedArray::unshared(bytes).expect("memory");
    let slot = size_of::<Slot>();
    UnwindTables {
        arena: memory((blocks * BLOCK_WORDS) as usize * 4),
        rules: memory(MAX_RULES as usize * 8),
        pages: SlotTable::of_pages(memory(PAGE_SLOTS as usize * slot)),
        processes: SlotTable::of_processes(memory(PROCESS_SLOTS as usize * slot)),
        epoch: memory(8),
    }
}

fn arena(blocks: u32, runs: &Runs) -> Arena {
    Arena::new(tables(blocks), blocks, Box::new(runs.clone()), RuleTable::new(MAX_RULES as usize))
}

fn module() -> ModuleId {
    ModuleTable::default().intern(ModuleKey::Vdso, Witness { pid: 1, start: 0, end: 1 })
}

fn rule(cfa_offset: i16) -> Rule {
    Rule { kind: kind::SP, cfa_offset, ra_offset: -1, ..Rule::default() }
}

fn rows(count: u16) -> Vec<(u16, Rule)> {
    (0..count).map(|index| (index * 4, rule((index % 7) as i16 + 1))).collect()
}

/// What was installed is found at every offset, by the same search over the same words that programs do.
#[test]
fn rows_are_found() {
    let mut arena = arena(1, &Runs::default());
    let rows = rows(1000);
    arena.install_page(module(), 3, &rows[1..]).expect("there is room");
    assert!(arena.has_page(module(), 3) && !arena.has_page(module(), 4));
    assert_eq!(arena.rule_at(module(), 3, 3), None, "before the first row");
    for (offset, expected) in &rows[1..] {
        for inside in 0..4 {
            assert_eq!(arena.rule_at(module(), 3, offset + inside), Some(*expected));
        }
    }
    let last = arena.rule_at(module(), 3, (TEXT_PAGE - 1) as u16);
    assert_eq!(last, Some(rows[999].1), "the last row holds to the page's end");
}

/// A page that is put there again replaces the old one; the old one's room and rules come back only when every program that
/// could see them has ended.
#[test]
fn room_comes_back_when_programs_have_ended() {
    let runs = Runs::default();
    let mut arena = arena(1, &runs);
    arena.install_page(module(), 0, &rows(100)).expect("there is room");
    let once = arena.memory_use();
    runs.set(1, 0);
    arena.install_page(module(), 0, &[(0, rule(99))]).expect("there is room");
    arena.begin_epoch();
    assert!(arena.memory_use().bytes > once.bytes, "a program may still be reading the old page");
    assert_eq!(arena.memory_use().rules, once.rules + 1);
    runs.set(5, 1);
    arena.begin_epoch();
    assert!(arena.memory_use().bytes < once.bytes);
    assert_eq!(arena.memory_use().rules, 3, "NONE, SLOW and the one that is used");
}

/// What is taken away can not be found, and its header says so to a program that had found it before.
#[test]
fn an_erased_header_matches_no_key() {
    let runs = Runs::default();
    let mut arena = arena(1, &runs);
    let mapping = Mapping { start: 0x1000, end: 0x3000, file_offset: 0, module: module() };
    arena.install_process(42, 7, &[mapping]).expect("there is room");
    let first = arena.tenants[&Occupant::Process(42)].extent.first as usize;
    let header = |arena: &Arena, word: usize| arena.tables.arena.word(first + word).load(Ordering::Relaxed);
    assert_eq!((header(&arena, 0), header(&arena, 1), header(&arena, 2)), (42, MAPPINGS, 1));
    assert_eq!(arena.tables.processes.used(), 1);
    arena.remove_process(42);
    assert_eq!((header(&arena, 0), header(&arena, 1), header(&arena, HEADER_COUNT as usize)), (0, 0, 0));
    assert_eq!(arena.tables.processes.used(), 0);
}

/// Mappings that are there already are left where they are, so that no program misses them for a moment; others replace them,
/// also when only the address space is another.
#[test]
fn the_same_mappings_stay_in_place() {
    let mut arena = arena(1, &Runs::default());
    let mapping = Mapping { start: 0x1000, end: 0x3000, file_offset: 0, module: module() };
    let longer = Mapping { end: 0x4000, ..mapping };
    let mut places = Vec::new();
    for (image, mappings) in
        [(7, vec![mapping]), (7, vec![mapping]), (8, vec![mapping]), (8, vec![longer]), (8, vec![])]
    {
        arena.begin_epoch();
        arena.install_process(42, image, &mappings).expect("there is room");
        places.push(arena.tenants[&Occupant::Process(42)].extent.first);
    }
    assert_eq!(places[0], places[1], "the same");
    assert!(places[1..].windows(2).all(|two| two[0] != two[1]), "{places:?}");
}

/// A full arena makes room by sending away what was used longest ago, and what was used lately stays.
#[test]
fn the_oldest_goes_first() {
    let runs = Runs::default();
    let mut arena = arena(1, &runs);
    let rows = rows(1000);
    let mut installed = 0;
    while arena.memory_use().evictions == 0 {
        arena.begin_epoch();
        // A program uses page 0 in every epoch.
        if let Some(tenancy) = arena.tenants.get(&Occupant::Page(page_key(module().number(), 0))) {
            let hit = (tenancy.extent.first + agent_ebpf::tables::HEADER_HIT) as usize;
            arena.tables.arena.word(hit).store(arena.tables.present_epoch(), Ordering::Relaxed);
        }
        arena.install_page(module(), installed, &rows).expect("no program runs, so room is there at once");
        installed += 1;
    }
    assert!(installed > 200, "{installed} pages of 4 KB in 1 MiB");
    assert!(arena.has_page(module(), 0), "used lately");
    assert!(!arena.has_page(module(), 1), "used longest ago");
    assert!(arena.has_page(module(), installed - 1));
    assert_eq!(arena.tables.pages.used(), arena.memory_use().pages);
}

/// What is read ahead sends nobody away, leaves a quarter of the room, and is the first to go unless a program has used it.
#[test]
fn what_is_read_ahead_takes_room_to_spare() {
    let mut arena = arena(1, &Runs::default());
    let rows = rows(1000);
    let mut ahead = 0;
    while arena.install_page_ahead(module(), 1000 + ahead, &rows).is_ok() {
        ahead += 1;
    }
    let ArenaUse { bytes, capacity, evictions, .. } = arena.memory_use();
    assert!((capacity * 7 / 10..=capacity * 3 / 4 + 8192).contains(&bytes), "{bytes} of {capacity}");
    assert!(!arena.has_room_to_spare());
    assert_eq!((evictions, arena.rule_at(module(), 1000, 0)), (0, Some(rows[0].1)));

    let used = arena.tenants[&Occupant::Page(page_key(module().number(), 1000))].extent.first;
    let hit = (used + agent_ebpf::tables::HEADER_HIT) as usize;
    arena.tables.arena.word(hit).store(arena.tables.present_epoch(), Ordering::Relaxed);
    let mut missed = 0;
    while arena.memory_use().evictions == 0 {
        arena.install_page(module(), missed, &rows).expect("no program runs, so room is there at once");
        missed += 1;
    }
    assert!((0..missed).all(|page| arena.has_page(module(), page)), "those that were missed stay");
    assert!(arena.has_page(module(), 1000), "the one that was used stays");
    let left = (1001..1000 + ahead).filter(|page| arena.has_page(module(), *page)).count();
    assert!(left < ahead as usize - 1, "{left} of {ahead}");
}

/// While programs run on, a full arena refuses, and serves again when they have ended.
#[test]
fn a_full_arena_refuses_while_programs_run() {
    let runs = Runs::default();
    let mut arena = arena(1, &runs);
    runs.set(1, 0);
    let rows = rows(2000);
    let refused = (0..1000).find(|page| arena.install_page(module(), *page, &rows).is_err());
    let refused = refused.expect("the arena is full");
    assert_eq!(arena.install_page(module(), refused, &rows), Err(NotInstalled::Full));
    runs.set(1, 1);
    assert_eq!(arena.install_page(module(), refused, &rows), Ok(()));
}

/// More keys than a set has slots: the last one is served, somebody else has to go, and the table never grows beyond it.
#[test]
fn a_full_set_sends_one_away() {
    let mut arena = arena(1, &Runs::default());
    let set = set_of(1, PROCESS_SLOTS);
    let pids: Vec<u32> = (1..)
        .filter(|pid| set_of(u64::from(*pid), PROCESS_SLOTS) == set)
        .take(SET_SLOTS as usize + 1)
        .collect();
    let mapping = Mapping { start: 0x1000, end: 0x3000, file_offset: 0, module: module() };
    for pid in &pids {
        arena.begin_epoch();
        arena.install_process(*pid, 7, &[mapping]).expect("there is room");
    }
    let kept: Vec<_> =
        pids.iter().filter(|pid| arena.tenants.contains_key(&Occupant::Process(**pid))).collect();
    assert_eq!(kept, pids[1..].iter().collect::<Vec<_>>(), "the oldest went");
    assert_eq!((arena.tables.processes.used(), arena.memory_use().evictions), (SET_SLOTS as usize, 1));
}

/// After any number of processes and pages came and went, the arena is as empty as before, in bytes.
#[test]
fn nothing_leaks() {
    let runs = Runs::default();
    let mut arena = arena(2, &runs);
    let empty = arena.memory_use();
    let mappings: Vec<_> = (0..60u64)
        .map(|index| Mapping {
            start: index << 20,
            end: (index << 20) + 0x5000,
            file_offset: 0,
            module: module(),
        })
        .collect();
    for pid in 1..=5000 {
        runs.set(u64::from(pid), u64::from(pid) - 1);
        arena.install_process(pid, 1, &mappings).expect("there is room");
        arena.remove_process(pid);
    }
    runs.set(5000, 5000);
    arena.begin_epoch();
    assert_eq!(arena.memory_use(), empty);
}

/// What does not fit the tables' form is refused.
#[test]
fn giants_are_refused() {
    let mut arena = arena(1, &Runs::default());
    let mapping = Mapping { start: 0x1000, end: 0x3000, file_offset: 0, module: module() };
    let many = vec![mapping; arena.most_mappings() + 1];
    assert_eq!(arena.install_process(1, 1, &many), Err(NotInstalled::TooLarge));
    let many = vec![(0, rule(1)); MOST_ROWS + 1];
    assert_eq!(arena.install_page(module(), 1, &many), Err(NotInstalled::TooLarge));
}

/// Rules beyond the table's room become SLOW, and are counted: never another rule.
#[test]
fn a_full_rule_table_is_slow_not_wrong() {
    let mut arena = Arena::new(tables(1), 1, Box::new(Runs::default()), RuleTable::new(4));
    let rows: Vec<_> = (0..5u16).map(|index| (index, rule(index as i16 + 1))).collect();
    arena.install_page(module(), 0, &rows).expect("there is room");
    let found: Vec<_> = (0..5).filter_map(|offset| arena.rule_at(module(), 0, offset)).collect();
    assert_eq!(found[..2], [rule(1), rule(2)]);
    assert!(found[2..].iter().all(|rule| rule.kind == kind::SLOW));
    assert_eq!(arena.memory_use().rules_refused, 3);
}
