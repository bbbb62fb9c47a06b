//! Rust source as the checks see it: code without comments and literals, and which of it is tests.

use std::collections::BTreeSet;

use crate::tree::TextFile;

/// A Rust source file.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) path: &'a str,
    /// The lines as written.
    pub(crate) raw: Vec<&'a str>,
    /// The lines with comments and the insides of literals blanked out.
    pub(crate) code: Vec<String>,
    /// Per line, whether it is compiled into tests only.
    pub(crate) is_test: Vec<bool>,
}

impl Source<'_> {
    /// The lines outside of tests, counted from 1.
    pub(crate) fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines(false)
    }

    /// The lines of tests, counted from 1.
    pub(crate) fn tests(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines(true)
    }

    fn lines(&self, test: bool) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.iter().zip(&self.is_test).enumerate();
        lines
            .filter(move |(_, (_, is_test))| **is_test == test)
            .map(|(i, (code, _))| (i + 1, code.as_str()))
    }
}

/// Reads every Rust file. A file is a test as a whole where it is below a folder `tests`, or a module that its parent
/// declares under `#[cfg(test)]`.
pub(crate) fn read(files: &[TextFile]) -> Vec<Source<'_>> {
    let mut test_modules = BTreeSet::new();
    let mut sources: Vec<Source<'_>> = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let masked = mask(&file.text);
        let code: Vec<String> = masked.lines().map(str::to_owned).collect();
        let mut is_test = vec![is_below_tests(&file.path); code.len()];
        for item in test_items(&masked) {
            if let Some(module) = &item.module {
                test_modules.insert(format!("{}/{module}", module_folder(file)));
            }
            is_test[item.first..=item.last.min(code.len() - 1)].fill(true);
        }
        sources.push(Source {
            path: &file.path,
            raw: file.text.lines().collect(),
            code,
            is_test,
        });
    }
    for source in &mut sources {
        let stem = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        if test_modules
            .iter()
            .any(|m| stem == m || stem.strip_prefix(m.as_str()).is_some_and(|s| s.starts_with('/')))
        {
            source.is_test.fill(true);
        }
    }
    sources
}

/// Where `name` begins in `line` as a whole word.
pub(crate) fn word(line: &str, name: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).map(|(at, _)| at).find(|&at| {
        let goes_on = name.ends_with(is_part) && line[at + name.len()..].starts_with(is_part);
        !goes_on && !line[..at].ends_with(is_part)
    })
}

/// The line, counted from 0, of the brace that closes the first one at or after `from`, and the line of that one.
pub(crate) fn block(code: &[String], from: usize) -> Option<(usize, usize)> {
    let (mut depth, mut opened) = (0_usize, None);
    for (i, line) in code.iter().enumerate().skip(from) {
        for c in line.chars() {
            match c {
                '{' => {
                    opened.get_or_insert(i);
                    depth += 1;
                }
                '}' if depth == 1 => return opened.map(|first| (first, i)),
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }
    None
}

fn is_below_tests(path: &str) -> bool {
    // A benchmark measures for as long as it says, and is no test.
    !path.starts_with("tests/bench/") && path.split('/').rev().skip(1).any(|folder| folder == "tests")
}

/// The folder where a file's submodules are.
fn module_folder(file: &TextFile) -> String {
    match file.name() {
        "lib.rs" | "main.rs" | "mod.rs" => file.folder().to_owned(),
        _ => file.path.trim_end_matches(".rs").to_owned(),
    }
}

/// An item under `#[cfg(test)]`: its lines, counted from 0, and its name where it is a module in a file of its own.
struct TestItem {
    first: usize,
    last: usize,
    module: Option<String>,
}

fn test_items(masked: &str) -> Vec<TestItem> {
    let line_of = |at: usize| masked[..at].matches('\n').count();
    let mut items = Vec::new();
    for (at, marker) in masked.match_indices("#[cfg(").filter(|(at, _)| {
        let inside = masked[*at..].split(']').next().unwrap_or_default();
        word(inside, "test").is_some() && word(inside, "not").is_none()
    }) {
        let Some(end) = item_end(&masked[at + marker.len()..]) else {
            continue;
        };
        let item = &masked[at..at + marker.len() + end];
        let module = item
            .trim_end_matches(';')
            .rsplit_once("mod ")
            .filter(|_| item.ends_with(';'))
            .map(|(_, name)| name.trim().to_owned());
        items.push(TestItem {
            first: line_of(at),
            last: line_of(at + item.len()),
            module,
        });
    }
    items
}

/// The length of an item: up to its closing brace, or to the semicolon of one that has no braces.
fn item_end(text: &str) -> Option<usize> {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (at, c) in text.char_indices() {
        match c {
            '{' => braces += 1,
            '}' if braces <= 1 => return Some(at + 1),
            '}' => braces -= 1,
            '(' | '[' => others += 1,
            ')' | ']' => others = others.saturating_sub(1),
            ';' if braces == 0 && others == 0 => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Blanks out comments and the insides of string and character literals; lines stay where they are.
pub(crate) fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after_word = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let len = if rest.starts_with("//") {
            blank(&mut out, rest, rest.find('\n').unwrap_or(rest.len()), 0)
        } else if rest.starts_with("/*") {
            let end = comment_end(rest);
            blank(&mut out, rest, end, 0)
        } else if let Some(end) = raw_string_end(rest).filter(|_| !after_word) {
            blank(&mut out, rest, end, 1)
        } else if c == '"' {
            let end = quoted_end(rest, '"');
            blank(&mut out, rest, end, 1)
        } else if c == '\'' && is_char_literal(rest) {
            let end = quoted_end(rest, '\'');
            blank(&mut out, rest, end, 1)
        } else {
            out.push(c);
            c.len_utf8()
        };
        rest = &rest[len..];
    }
    out
}

/// Writes the first `len` bytes as blanks, but for `keep` bytes at both ends, and returns `len`.
fn blank(out: &mut String, text: &str, len: usize, keep: usize) -> usize {
    for (at, c) in text[..len].char_indices() {
        let kept = c == '\n' || at < keep || at + keep >= len;
        out.push(if kept { c } else { ' ' });
    }
    len
}

fn comment_end(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The end of `r"…"`, `r#"…"#`, `br"…"` or `cr"…"` at the start of the text, if one is there.
fn raw_string_end(text: &str) -> Option<usize> {
    let body = text.strip_prefix(['b', 'c']).unwrap_or(text).strip_prefix('r')?;
    let hashes = body.bytes().take_while(|&b| b == b'#').count();
    let inside = body[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let start = text.len() - inside.len();
    Some(inside.find(&close).map_or(text.len(), |end| start + end + close.len()))
}

fn quoted_end(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Whether the quote begins a character and not a lifetime.
fn is_char_literal(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::file;

    #[test]
    fn comments_and_literals_are_blank_and_lines_stay() {
        let text =
            "let a = \"x // y\"; // z\n/* one /* two */ three */ b();\nlet c = '\"'; let d: &'a str = r#\"{\"#;\n";
        let masked = mask(text);
        assert_eq!(masked.lines().count(), 3);
        for gone in ["x", "z", "one", "three"] {
            assert!(word(&masked, gone).is_none(), "{gone} in {masked}");
        }
        assert!(masked.contains("b();") && masked.contains("&'a str"), "{masked}");
        assert!(!masked.contains('{'), "{masked}");
    }

    #[test]
    fn escapes_do_not_end_a_literal() {
        assert_eq!(mask(r#"f("a\"b", '\'', x)"#), r#"f("    ", '  ', x)"#);
    }

    #[test]
    fn what_is_under_cfg_test_is_a_test_and_the_rest_is_not() {
        let files = [
            file("c/src/lib.rs", "mod a;\n#[cfg(test)]\nmod tests;\nfn f() {}\n"),
            file(
                "c/src/a.rs",
                "fn g() {}\n#[cfg(test)]\nmod tests {\n    fn t() {}\n}\nfn h() {}\n",
            ),
            file("c/src/tests.rs", "fn t() {}\n"),
            file("c/src/tests/deep.rs", "fn t() {}\n"),
            file("c/tests/it/main.rs", "fn t() {}\n"),
            file(
                "c/src/b.rs",
                "#[cfg(not(test))]\nfn p() {}\n#[cfg(test)]\nuse x;\nfn q() {}\n",
            ),
        ];
        let sources = read(&files);
        let product = |i: usize| sources[i].product().map(|(line, _)| line).collect::<Vec<_>>();
        assert_eq!(product(0), [1, 4]);
        assert_eq!(product(1), [1, 6]);
        assert_eq!(product(5), [1, 2, 5]);
        for whole in &sources[2..5] {
            assert_eq!(whole.product().count(), 0, "{}", whole.path);
        }
    }

    #[test]
    fn words_are_whole() {
        assert!(word("a.sleep(x)", "sleep").is_some());
        assert!(word("a.sleeps(x)", "sleep").is_none());
        assert!(word("oversleep", "sleep").is_none());
        assert!(word("Instant::now()", "Instant::now").is_some());
    }
}
