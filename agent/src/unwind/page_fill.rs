//! Filling what one section's rows leave open with another's.

use agent_ebpf::rule::{Rule, kind};

use super::page::Page;

impl Page {
    /// Whether some of the page's code has no rule.
    pub fn has_gap(&self) -> bool {
        self.rows.iter().any(|row| row.1.kind == kind::NONE)
    }

    /// Takes the rules of `other`, the same page by other call frame information, where this one has none.
    pub fn fill_from(&mut self, other: &Self) {
        if !self.has_gap() {
            return;
        }
        let own = std::mem::take(&mut self.rows);
        for (index, &(start, rule)) in own.iter().enumerate() {
            if rule.kind != kind::NONE {
                self.push(start, rule);
                continue;
            }
            let next = own.get(index + 1).map(|row| row.0);
            // What holds there at the gap's start, then what begins within it.
            let within = other.rows.partition_point(|row| row.0 <= start);
            let first = within.checked_sub(1).and_then(|before| other.rows.get(before));
            self.push(start, first.map_or_else(Rule::default, |row| row.1));
            let rest = other.rows.get(within..).unwrap_or_default().iter();
            for &(offset, rule) in rest.take_while(|row| next.is_none_or(|next| row.0 < next)) {
                self.push(offset, rule);
            }
        }
        self.stats.fdes += other.stats.fdes;
        self.stats.bad_fdes += other.stats.bad_fdes;
        self.stats.slow_rows = self.rows.iter().filter(|row| row.1.kind == kind::SLOW).count() as u32;
    }

    fn push(&mut self, offset: u16, rule: Rule) {
        if self.rows.last().is_none_or(|last| last.1 != rule) {
            self.rows.push((offset, rule));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(rows: &[(u16, u8)]) -> Page {
        let rule = |kind| Rule { kind, ..Rule::default() };
        let rows = rows.iter().map(|&(offset, kind)| (offset, rule(kind))).collect();
        Page { rows, ..Page::default() }
    }

    /// At every offset the filled page has its own rule where it had one, and the other's elsewhere; neighbours differ.
    #[test]
    fn takes_the_others_rules_in_gaps_only() {
        let own =
            page(&[(0, kind::NONE), (10, kind::SIGNAL), (20, kind::NONE), (30, kind::END), (40, kind::NONE)]);
        let others = [
            page(&[]),
            page(&[(0, kind::NONE)]),
            page(&[(0, kind::SLOW)]),
            page(&[(0, kind::NONE), (5, kind::SLOW), (15, kind::END), (25, kind::NONE), (35, kind::SLOW)]),
            page(&[(0, kind::SIGNAL), (20, kind::END), (41, kind::SLOW), (50, kind::NONE)]),
        ];
        let at = |page: &Page, offset: u16| {
            let after = page.rows.partition_point(|row| row.0 <= offset);
            after.checked_sub(1).map_or(kind::NONE, |index| page.rows[index].1.kind)
        };
        for other in others {
            let mut filled = own.clone();
            filled.fill_from(&other);
            for offset in 0..60 {
                let expected = match at(&own, offset) {
                    kind::NONE => at(&other, offset),
                    known => known,
                };
                assert_eq!(at(&filled, offset), expected, "at {offset} of {filled:?}");
            }
            assert!(filled.rows.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1));
        }
    }
}
