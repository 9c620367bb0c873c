//! Amounts as people read them.

use std::time::Duration;

/// `value` in its unit (pprof's vocabulary) with three significant digits or so: `1.23 s`, `45.6 ms`, `12
/// count`.
pub fn amount(value: i64, unit: &str) -> String {
    match unit {
        "nanoseconds" => nanoseconds(value),
        "bytes" => bytes(value),
        unit => format!("{value} {unit}"),
    }
}

/// `value` bytes: `4.00 KiB`, `1.50 GiB`.
pub fn bytes(value: i64) -> String {
    let (divisor, unit) = match value.unsigned_abs() {
        0 => return "0".to_owned(),
        1..0x400 => return format!("{value} B"),
        0x400..0x10_0000 => (1u64 << 10, "KiB"),
        0x10_0000..0x4000_0000 => (1 << 20, "MiB"),
        0x4000_0000..0x100_0000_0000 => (1 << 30, "GiB"),
        _ => (1 << 40, "TiB"),
    };
    scaled(value as f64 / divisor as f64, unit)
}

fn nanoseconds(value: i64) -> String {
    let (divisor, unit) = match value.unsigned_abs() {
        0 => return "0".to_owned(),
        1..1_000 => return format!("{value} ns"),
        1_000..1_000_000 => (1e3, "µs"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    scaled(value as f64 / divisor, unit)
}

/// With three significant digits or so.
fn scaled(scaled: f64, unit: &str) -> String {
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
        for (value, text) in [
            (0, "0"),
            (1023, "1023 B"),
            (4096, "4.00 KiB"),
            (-(3 << 19), "-1.50 MiB"),
            (10 << 30, "10.0 GiB"),
            (1 << 40, "1.00 TiB"),
        ] {
            assert_eq!(amount(value, "bytes"), text);
        }
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
