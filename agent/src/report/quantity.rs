//! Amounts as people read them.

use std::time::Duration;

/// `value` in its unit (pprof's vocabulary) with three significant digits or so: `1.23 s`, `45.6 ms`, `12
/// count`.
pub fn amount(value: i64, unit: &str) -> String {
    if unit == "nanoseconds" { nanoseconds(value) } else { format!("{value} {unit}") }
}

fn nanoseconds(value: i64) -> String {
    let (divisor, unit) = match value.unsigned_abs() {
        0 => return "0".to_owned(),
        1..1_000 => return format!("{value} ns"),
        1_000..1_000_000 => (1e3, "µs"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let scaled = value as f64 / divisor;
    let digits = match scaled.abs() {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.digits$} {unit}")
}

/// The length of a window: `10.0 s`, `200 ms`.
pub fn length(duration: Duration) -> String {
    nanoseconds(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

/// `part` of `whole` in percent; 0 of nothing is 0.
pub fn percent(part: i64, whole: i64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every magnitude gets a unit in which it is a small number, and rounding does not leave that unit's
    /// digits.
    #[test]
    fn times_are_scaled() {
        for (value, text) in [
            (0, "0"),
            (1, "1 ns"),
            (999, "999 ns"),
            (1_500, "1.50 µs"),
            (10_101_010, "10.1 ms"),
            (9_999_000, "10.0 ms"),
            (99_960_000, "100 ms"),
            (1_234_567_890, "1.23 s"),
            (19_750_000_000, "19.8 s"),
            (3_600_000_000_000, "3600 s"),
            (-1_500_000, "-1.50 ms"),
        ] {
            assert_eq!(amount(value, "nanoseconds"), text);
        }
        assert_eq!(amount(12, "count"), "12 count");
        assert_eq!(length(Duration::from_secs(10)), "10.0 s");
        assert_eq!(length(Duration::MAX), amount(i64::MAX, "nanoseconds"));
    }

    /// Shares of nothing are 0, not NaN.
    #[test]
    fn shares_of_nothing() {
        assert!(percent(0, 0).abs() < f64::EPSILON);
        assert!((percent(1, 4) - 25.0).abs() < f64::EPSILON);
    }
}
