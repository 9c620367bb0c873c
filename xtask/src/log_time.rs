//! Times as the agent writes them, in its log and its profiles: RFC 3339 in UTC.

use std::time::{Duration, SystemTime};

/// Parses `2024-02-29T12:34:56.789Z`, with any number of decimals up to nine; `None` if it is something else.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let [hour, minute, second] = numbers(time, ':')?;
    let valid = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !valid || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds(fraction)?))
}

fn numbers(text: &str, separator: char) -> Option<[u64; 3]> {
    let parsed: Option<Vec<u64>> = text.split(separator).map(|part| part.parse().ok()).collect();
    parsed?.try_into().ok()
}

fn nanoseconds(fraction: &str) -> Option<u32> {
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{fraction:0<9}").parse().ok()
}

/// Days from 0000-03-01 to 1970-01-01.
const TO_1970: u64 = 719_468;

/// Days from 1970-01-01 to a day of the Gregorian calendar from 1970 on.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    // Counted in years that begin in March, a leap day is a year's last day.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since_1970(text: &str) -> Option<Duration> {
        parse(text).map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap())
    }

    /// Known times (`date -d TIME +%s`), around leap days and the ends of years.
    #[test]
    fn times_are_parsed() {
        assert_eq!(since_1970("1970-01-01T00:00:00Z"), Some(Duration::ZERO));
        assert_eq!(since_1970("2024-02-29T12:34:56.789Z"), Some(Duration::from_millis(1_709_210_096_789)));
        assert_eq!(since_1970("2024-03-01T00:00:01Z"), Some(Duration::from_secs(1_709_251_201)));
        assert_eq!(since_1970("2000-12-31T23:59:59.000001Z"), Some(Duration::new(978_307_199, 1_000)));
        assert_eq!(
            since_1970("2026-11-21T02:14:38.758572Z"),
            Some(Duration::new(1_795_227_278, 758_572_000))
        );
    }

    /// Other forms and impossible values are no times.
    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "2024-02-29", "2024-02-29T12:34:56", "2024-13-01T00:00:00Z", "2024-01-01T24:00:00Z"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        for text in ["2024-01-01T00:00Z", "2024-01-01T00:00:00.-1Z", "1969-12-31T00:00:00Z"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
