//! Numbers in lines of the agent's log.

/// The number after `name` in a log line, as tracing writes fields (`name=1`) and debug formatting does (`name: 1`).
pub(super) fn field(line: &str, name: &str) -> Option<u64> {
    let after = line.match_indices(name).find_map(|(at, _)| {
        let begins =
            line[..at].chars().next_back().is_none_or(|before| !before.is_alphanumeric() && before != '_');
        let rest = &line[at + name.len()..];
        rest.strip_prefix('=').or_else(|| rest.strip_prefix(": ")).filter(|_| begins)
    })?;
    let digits = after.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(after.len());
    after[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields are found by their whole names, in both ways of writing them.
    #[test]
    fn fields_of_log_lines_are_read() {
        let line = "DEBUG agent: user stacks walked=198 slow=3 usage=ArenaUse { pages: 17, free_pages: 4, bytes: 88 }";
        assert_eq!(field(line, "walked"), Some(198));
        assert_eq!(field(line, "slow"), Some(3));
        assert_eq!(field(line, "pages"), Some(17));
        assert_eq!(field(line, "bytes"), Some(88));
        assert_eq!(field(line, "low"), None);
        assert_eq!(field(line, "user"), None);
    }
}
