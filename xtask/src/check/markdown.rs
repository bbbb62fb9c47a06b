//! Markdown as far as the checks read it.

/// A fenced block of code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    /// The line of its first ```` ``` ````, counted from 1.
    pub(crate) line: usize,
    /// What stands behind it, such as `toml edge`.
    pub(crate) info: String,
    pub(crate) text: String,
}

/// The fenced blocks of a text.
pub(crate) fn fences(text: &str) -> Vec<Fence> {
    let mut fences = Vec::new();
    let mut open: Option<Fence> = None;
    for (i, line) in text.lines().enumerate() {
        let mark = line.trim_start().strip_prefix("```");
        match (&mut open, mark) {
            (None, Some(info)) => {
                open = Some(Fence {
                    line: i + 1,
                    info: info.trim().to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => fences.extend(open.take()),
            (Some(fence), None) => {
                fence.text.push_str(line);
                fence.text.push('\n');
            }
            (None, None) => {}
        }
    }
    fences.extend(open);
    fences
}

/// The lines of a text that are prose: outside of fenced blocks, counted from 1, with `code` blanked out.
pub(crate) fn prose(text: &str) -> Vec<(usize, String)> {
    let mut inside = false;
    let mut lines = Vec::new();
    for (i, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            let parts = line.split('`').enumerate();
            let kept: Vec<_> = parts.map(|(n, part)| if n % 2 == 0 { part } else { " " }).collect();
            lines.push((i + 1, kept.join("`")));
        }
    }
    lines
}

/// The lines below a heading up to the next one of the same or a higher level, counted from 1.
pub(crate) fn section<'a>(text: &'a str, heading: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let level = heading.bytes().take_while(|&b| b == b'#').count();
    let ends = move |line: &str| {
        let marks = line.bytes().take_while(|&b| b == b'#').count();
        marks > 0 && marks <= level && line[marks..].starts_with(' ')
    };
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    lines
        .skip_while(move |(_, line)| *line != heading)
        .skip(1)
        .take_while(move |(_, line)| !ends(line))
}

/// The anchors of a text's headings, as code hosts make them.
pub(crate) fn anchors(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut anchors = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside && line.starts_with('#') {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            anchors.push(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    anchors
}

/// The targets of the links in a line.
pub(crate) fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ']).next())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# One\n\n[a](b.md) and `[c](d.md)`\n\n```toml edge\nx = 1\n```\n\n## Two words\nin\n### Three\nin\n## Four\nout\n";

    #[test]
    fn fences_know_their_line_and_kind() {
        let fence = Fence {
            line: 5,
            info: "toml edge".to_owned(),
            text: "x = 1\n".to_owned(),
        };
        assert_eq!(fences(TEXT), [fence]);
    }

    #[test]
    fn links_in_code_are_no_links() {
        let prose = prose(TEXT);
        let found: Vec<_> = prose.iter().flat_map(|(_, line)| links(line)).collect();
        assert_eq!(found, ["b.md"]);
    }

    #[test]
    fn a_section_ends_with_the_next_heading_of_its_level() {
        let lines: Vec<_> = section(TEXT, "## Two words").map(|(line, _)| line).collect();
        assert_eq!(lines, [10, 11, 12]);
    }

    #[test]
    fn anchors_are_headings_in_lower_case() {
        assert_eq!(anchors(TEXT), ["one", "two-words", "three", "four"]);
    }
}
