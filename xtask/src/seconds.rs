//! Lengths of time on the command line.

/// Parses `20s`, `20` or `0.5s`: between 0.1 seconds and an hour.
pub(crate) fn parse(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        Ok(_) => Err("a window lasts between 0.1s and 3600s".to_owned()),
        Err(_) => Err(format!("{text:?} is not a number of seconds")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds with and without their unit; what is none is refused.
    #[test]
    fn seconds_are_parsed() {
        assert_eq!((parse("20s"), parse("0.5")), (Ok(20.0), Ok(0.5)));
        for text in ["", "s", "0", "-1s", "NaN", "inf", "2m", "3601"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
