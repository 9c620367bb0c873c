//! The rules that rows refer to by number: one table for all modules, because compilers use the same thousand rules everywhere.

use std::collections::HashMap;

use agent_ebpf::rule::{Rule, kind};

/// What an entry of the table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    /// `rule` has `references` users.
    Used { rule: Rule, references: u32 },
    /// Nobody refers to it any more, but a program may still be reading a row that does.
    Released,
    /// To be used again.
    Free,
}

/// Numbers rules and counts their users.
///
/// A number whose last user is gone is not used again before [`RuleTable::reclaim`]: a program that found a row before it was
/// taken away would follow another rule.
#[derive(Debug)]
pub struct RuleTable {
    slots: Vec<Slot>,
    numbers: HashMap<Rule, u16>,
    free: Vec<u16>,
    released: Vec<u16>,
    changed: Vec<(u16, Rule)>,
    capacity: usize,
}

impl RuleTable {
    /// The number of the rule [`kind::NONE`].
    pub const NONE: u16 = 0;
    /// The number of the rule [`kind::SLOW`].
    pub const SLOW: u16 = 1;
    /// Heap bytes that a rule takes at most: its slot, its place in the map and in the lists.
    pub const BYTES_PER_RULE: usize = 64;

    /// Room for `capacity` rules, the two fixed ones included; 2 at least, 65,536 at most.
    pub fn new(capacity: usize) -> Self {
        let mut table = Self {
            slots: Vec::new(),
            numbers: HashMap::new(),
            free: Vec::new(),
            released: Vec::new(),
            changed: Vec::new(),
            capacity: capacity.clamp(2, usize::from(u16::MAX) + 1),
        };
        // A reference of the table's own keeps both for ever.
        table.intern(Rule { kind: kind::NONE, ..Rule::default() });
        table.intern(Rule { kind: kind::SLOW, ..Rule::default() });
        table
    }

    /// The number of `rule`, with one more user. None when the table is full: such a row becomes [`RuleTable::SLOW`].
    pub fn intern(&mut self, rule: Rule) -> Option<u16> {
        if let Some(&number) = self.numbers.get(&rule) {
            if let Some(Slot::Used { references, .. }) = self.slots.get_mut(usize::from(number)) {
                *references = references.saturating_add(1);
            }
            return Some(number);
        }
        let used = Slot::Used { rule, references: 1 };
        let number = if let Some(number) = self.free.pop() {
            *self.slots.get_mut(usize::from(number))? = used;
            number
        } else {
            let number = u16::try_from(self.slots.len()).ok().filter(|_| self.slots.len() < self.capacity)?;
            self.slots.push(used);
            number
        };
        self.numbers.insert(rule, number);
        self.changed.push((number, rule));
        Some(number)
    }

    /// Takes one user away from a number. One that has none is ignored.
    pub fn release(&mut self, number: u16) {
        let Some(slot) = self.slots.get_mut(usize::from(number)) else { return };
        let Slot::Used { rule, references } = slot else { return };
        // A count that reached its end is never trusted again; the fixed rules keep one.
        if *references == u32::MAX || (number <= Self::SLOW && *references == 1) {
            return;
        }
        *references -= 1;
        if *references == 0 {
            self.numbers.remove(rule);
            *slot = Slot::Released;
            self.released.push(number);
        }
    }

    /// Lets released numbers be used again. The caller knows that no program that saw them is still running.
    pub fn reclaim(&mut self) {
        for &number in &self.released {
            if let Some(slot) = self.slots.get_mut(usize::from(number)) {
                *slot = Slot::Free;
            }
        }
        self.free.append(&mut self.released);
    }

    /// Takes what must be written to the kernel's table before rows that refer to it, in order.
    pub fn take_changed(&mut self) -> Vec<(u16, Rule)> {
        std::mem::take(&mut self.changed)
    }

    /// The rule with this number; None when nobody uses it.
    pub fn get(&self, number: u16) -> Option<Rule> {
        match self.slots.get(usize::from(number))? {
            Slot::Used { rule, .. } => Some(*rule),
            Slot::Released | Slot::Free => None,
        }
    }

    /// Rules in use.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether no rule is in use: never, two are fixed.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Rules that the table has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Numbers that wait for [`RuleTable::reclaim`].
    pub fn released(&self) -> usize {
        self.released.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(offset: i16) -> Rule {
        Rule { kind: kind::SP, cfa_offset: offset, ra_offset: -1, ..Rule::default() }
    }

    /// The two fixed rules have their numbers from the start and keep them whatever is released.
    #[test]
    fn fixed_rules_stay() {
        let mut table = RuleTable::new(0);
        assert_eq!(table.capacity(), 2);
        let slow = Rule { kind: kind::SLOW, ..Rule::default() };
        assert_eq!(table.take_changed(), [(0, Rule::default()), (1, slow)]);
        for _ in 0..3 {
            assert_eq!(table.intern(Rule::default()), Some(RuleTable::NONE));
            table.release(RuleTable::NONE);
            table.release(RuleTable::NONE);
            table.release(RuleTable::SLOW);
        }
        assert_eq!(table.intern(slow), Some(RuleTable::SLOW));
        assert_eq!((table.len(), table.released()), (2, 0));
        assert_eq!(table.intern(rule(1)), None, "full");
    }

    /// A number lives as long as its users, and is used again only after it was reclaimed.
    #[test]
    fn a_released_number_waits() {
        let mut table = RuleTable::new(4);
        let first = table.intern(rule(1)).unwrap();
        assert_eq!(table.intern(rule(1)), Some(first));
        let second = table.intern(rule(2)).unwrap();
        assert_eq!(table.take_changed().len(), 4);
        table.release(first);
        assert_eq!(table.get(first), Some(rule(1)), "one user is left");
        table.release(first);
        assert_eq!(table.get(first), None);
        table.release(first);
        assert_eq!((table.len(), table.released()), (3, 1), "released once only");
        assert_eq!(table.intern(rule(3)), None, "a program may still read it");
        assert_eq!(table.intern(rule(1)), None, "nor is it revived");
        table.reclaim();
        assert_eq!(table.intern(rule(3)), Some(first));
        assert_eq!(table.take_changed(), [(first, rule(3))]);
        assert_eq!(table.get(second), Some(rule(2)));
        table.release(999);
    }

    /// All 65,536 numbers can be used, and not one more; and all come back.
    #[test]
    fn fills_up_and_empties() {
        let mut table = RuleTable::new(usize::MAX);
        let rules = |n: usize| Rule { cfa_offset: n as u16 as i16, ..rule(0) };
        let numbers: Vec<u16> = (2..65536).map(|n| table.intern(rules(n)).unwrap()).collect();
        assert_eq!(table.intern(rules(0)), None);
        assert_eq!(table.len(), 65536);
        for number in numbers {
            table.release(number);
        }
        assert_eq!((table.len(), table.released()), (2, 65534));
        table.reclaim();
        assert!((2..65536).all(|n| table.intern(rules(n)).is_some()));
    }
}
