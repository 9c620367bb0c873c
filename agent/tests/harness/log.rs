//! Numbers in what the agent logs.

use super::profiled::Profiled;

impl Profiled {
    /// The number behind ` name` in the line that has `line` in it, whether as `name=1` or as `name: 1`.
    pub(crate) fn logged(&self, line: &str, name: &str) -> u64 {
        let found = self.log.iter().find(|logged| logged.contains(line));
        let text = found.unwrap_or_else(|| panic!("{line:?} is not in\n{}", self.log.join("\n")));
        let number = ["=", ": "].iter().find_map(|between| {
            let (_, rest) = text.split_once(&format!(" {name}{between}"))?;
            let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
            rest[..digits].parse().ok()
        });
        number.unwrap_or_else(|| panic!("{name} is not in {text}"))
    }

    /// Bytes of the agent's table `name`, and how many it may have.
    pub(crate) fn table(&self, name: &str) -> (u64, u64) {
        let line = format!("table name=\"{name}\"");
        (self.logged(&line, "bytes"), self.logged(&line, "budget"))
    }
}
