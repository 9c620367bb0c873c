//! What the machine said, in the parts that its init marks.

/// What one command wrote.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// Lines, each with its end.
    pub(super) text: String,
    /// Its exit status; `None` when the machine ended in the midst of it.
    pub(super) status: Option<i32>,
}

/// The section `name` of `console`, if the machine got that far.
pub(super) fn section(console: &str, name: &str) -> Option<Section> {
    let begin = format!("@@begin {name}");
    let end = format!("@@end {name} ");
    let mut lines = console.lines().skip_while(|line| *line != begin);
    lines.next()?;
    let mut text = String::new();
    for line in lines {
        if let Some(status) = line.strip_prefix(&end) {
            return Some(Section { text, status: status.parse().ok() });
        }
        text.push_str(line);
        text.push('\n');
    }
    Some(Section { text, status: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A section is what stands between its own markers, with the exit status; one that does not end has none; a serial
    /// line's carriage returns are gone.
    #[test]
    fn sections_are_cut_out() {
        let console = "boot\r\n@@begin a\r\none\r\ntwo\r\n@@end a 3\r\n@@begin b\r\nthree\r\n@@end a 0\r\n";
        let of = |text: &str, status| Some(Section { text: text.to_owned(), status });
        assert_eq!(section(console, "a"), of("one\ntwo\n", Some(3)));
        assert_eq!(section(console, "b"), of("three\n@@end a 0\n", None));
        assert_eq!(section(console, "c"), None);
    }
}
