//! Wall-clock time as text, always in UTC: for titles, JSON and file names.

use std::time::{SystemTime, UNIX_EPOCH};

const SECONDS_PER_DAY: i64 = 86_400;

/// RFC 3339 in UTC with milliseconds: `2024-02-29T12:34:56.789Z`.
pub fn rfc3339_millis(time: SystemTime) -> String {
    let (civil, nanos) = CivilTime::at(time);
    let CivilTime { year, month, day, hour, minute, second } = civil;
    let millis = nanos / 1_000_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// RFC 3339 in UTC, cut to whole seconds: `2024-02-29T12:34:56Z`.
pub fn rfc3339(time: SystemTime) -> String {
    let (CivilTime { year, month, day, hour, minute, second }, _) = CivilTime::at(time);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The stamp of file names, in UTC and cut to whole seconds: `20240229T123456Z` (ISO 8601 basic format,
/// which sorts by time and needs no quoting).
pub fn file_stamp(time: SystemTime) -> String {
    let (CivilTime { year, month, day, hour, minute, second }, _) = CivilTime::at(time);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Nanoseconds since the Unix epoch, negative before it; clamped to what an `i64` holds (years 1677–2262).
pub fn unix_nanos(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
    }
}

struct CivilTime {
    year: i64,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
}

impl CivilTime {
    /// The whole second that `time` lies in, and the nanoseconds into it.
    fn at(time: SystemTime) -> (Self, u32) {
        let nanos = unix_nanos(time);
        let seconds = nanos.div_euclid(1_000_000_000);
        let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY) as u32;
        let civil =
            Self { year, month, day, hour: of_day / 3600, minute: of_day / 60 % 60, second: of_day % 60 };
        (civil, nanos.rem_euclid(1_000_000_000) as u32)
    }
}

/// Year, month and day of the proleptic Gregorian calendar, `days` after 1970-01-01.
///
/// The calendar is counted in eras of 400 years (146 097 days) whose years begin in March, so that the leap
/// day is the last one of a year. See Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    const DAYS_PER_ERA: i64 = 146_097;
    const DAYS_FROM_0000_03_01_TO_1970: i64 = 719_468;
    let shifted = days + DAYS_FROM_0000_03_01_TO_1970;
    let day_of_era = shifted.rem_euclid(DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = shifted.div_euclid(DAYS_PER_ERA) * 400 + year_of_era + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: i64) -> SystemTime {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
    }

    /// Dates as `date -u -d @N +%FT%TZ` prints them: epoch, leap days, century rules, before the epoch.
    #[test]
    fn known_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (-86_400, "1969-12-31T00:00:00Z"),
            (68_169_599, "1972-02-28T23:59:59Z"),
            (68_169_600, "1972-02-29T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_000_000_000, "2001-09-09T01:46:40Z"),
            (1_709_210_096, "2024-02-29T12:34:56Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (1_767_225_600, "2026-01-01T00:00:00Z"),
            (2_147_483_648, "2038-01-19T03:14:08Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(at(seconds)), text, "@{seconds}");
        }
    }

    /// Every day of four centuries follows the one before it by the rules of the calendar.
    #[test]
    fn days_follow_each_other() {
        let length = |year: i64, month: u32| match month {
            2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let mut expected = (1970, 1, 1);
        for days in 0..146_097 {
            assert_eq!(civil_from_days(days), expected);
            let (year, month, day) = expected;
            expected = if day < length(year, month) {
                (year, month, day + 1)
            } else if month < 12 {
                (year, month + 1, 1)
            } else {
                (year + 1, 1, 1)
            };
        }
        assert_eq!(expected, (2370, 1, 1));
    }

    /// Fractions are cut, not rounded, and the file stamp has no character that a shell or a file system
    /// minds.
    #[test]
    fn fractions_and_stamps() {
        let time = at(1_709_210_096) + Duration::from_nanos(789_999_999);
        assert_eq!(rfc3339_millis(time), "2024-02-29T12:34:56.789Z");
        assert_eq!(rfc3339(time), "2024-02-29T12:34:56Z");
        assert_eq!(file_stamp(time), "20240229T123456Z");
    }

    /// Nanoseconds keep their sign and stop at the ends of an `i64` instead of wrapping.
    #[test]
    fn nanoseconds_are_clamped() {
        assert_eq!(unix_nanos(at(1)), 1_000_000_000);
        assert_eq!(unix_nanos(at(-1)), -1_000_000_000);
        assert_eq!(unix_nanos(at(1 << 40)), i64::MAX);
        assert_eq!(unix_nanos(at(-(1 << 40))), i64::MIN);
    }
}
