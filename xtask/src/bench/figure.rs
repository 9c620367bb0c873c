//! Figures, and the table that shows them beside their aims.

/// One measured quantity.
#[derive(Debug, PartialEq)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) name: String,
    /// Such as `ms`.
    pub(crate) unit: &'static str,
    /// One value a run, at least one.
    pub(crate) values: Vec<f64>,
    /// What is not to be exceeded.
    pub(crate) aim: Option<f64>,
}

impl Figure {
    /// A figure without an aim.
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Self {
        Self { name: name.into(), unit, values, aim: None }
    }

    /// The figure with an aim.
    pub(crate) fn aim(self, aim: f64) -> Self {
        Self { aim: Some(aim), ..self }
    }

    /// Least, median and greatest value; the median of an even number is the mean of the middle two.
    pub(crate) fn spread(&self) -> Option<[f64; 3]> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            *values.get(middle)?
        } else {
            f64::midpoint(*values.get(middle.checked_sub(1)?)?, *values.get(middle)?)
        };
        Some([*values.first()?, median, *values.last()?])
    }

    fn row(&self) -> String {
        let Self { name, unit, aim, .. } = self;
        let values = match self.spread() {
            None => format!("{:>26}", "not measured"),
            Some([least, median, greatest]) if self.values.len() > 1 => {
                format!("{least:>8.1} {median:>8.1} {greatest:>8.1}")
            }
            Some([value, ..]) => format!("{:>8} {value:>8.1} {:>8}", "", ""),
        };
        let verdict = match (aim, self.spread()) {
            // The worst run counts.
            (Some(aim), Some([.., greatest])) if greatest > *aim => format!("  <= {aim} {unit}: MISSED"),
            (Some(aim), _) => format!("  <= {aim} {unit}"),
            (None, _) => String::new(),
        };
        format!("{name:<62} {unit:<5} {values}{verdict}")
    }
}

/// The figures as a table, a line each.
pub(crate) fn table(figures: &[Figure]) -> String {
    let head = format!("{:<62} {:<5} {:>8} {:>8} {:>8}  AIM", "", "", "MIN", "MEDIAN", "MAX");
    let rows = figures.iter().map(Figure::row);
    std::iter::once(head).chain(rows).map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Medians of odd and even numbers of runs, in any order.
    #[test]
    fn spread_is_least_median_greatest() {
        let spread = |values: &[f64]| Figure::new("a", "ms", values.to_vec()).spread();
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some([1.0, 2.0, 3.0]));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), Some([1.0, 2.5, 4.0]));
        assert_eq!(spread(&[]), None);
    }

    /// An aim is missed when the worst run misses it; no values are not a success in disguise.
    #[test]
    fn misses_are_marked() {
        let row = |values: &[f64]| Figure::new("a", "ms", values.to_vec()).aim(2.0).row();
        assert!(row(&[1.0, 1.0, 2.5]).ends_with("<= 2 ms: MISSED"));
        assert!(row(&[1.0, 1.5, 2.0]).ends_with("<= 2 ms"));
        assert!(row(&[]).contains("not measured"));
    }
}
