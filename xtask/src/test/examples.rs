//! The examples of the book and of `deploy/`, put to the programs they are for.
//!
//! * A `toml cloud` or `toml edge` block must pass the `config check` of its program.
//! * A command line of one of the programs must be one that the program takes.
//! * A key of a program's configuration must have its row in the reference.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Tally;
use super::keys;
use crate::check::markdown;
use crate::metadata::Metadata;
use crate::tree::{self, TextFile};

/// The programs, by the names of their files.
const PROGRAMS: [&str; 2] = ["tunnel-cloud", "tunnel-edge"];

/// A command line that somebody may copy.
#[derive(Debug, PartialEq, Eq)]
struct CommandLine {
    /// Where it stands.
    place: String,
    program: &'static str,
    words: Vec<String>,
}

/// Tries every example, with the binaries of the development profile.
pub(super) fn run(metadata: &Metadata, tally: &mut Tally) -> Result<()> {
    let binaries = metadata.target_directory.join("debug");
    let files = tree::read(&metadata.workspace_root)?;
    let scratch = metadata.target_directory.join("examples-of-the-book");
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    for page in files.iter().filter(|file| file.is_markdown()) {
        for fence in markdown::fences(&page.text) {
            let Some(owner) = fence.info.strip_prefix("toml ") else {
                continue;
            };
            let config = scratch.join(format!("{owner}.toml"));
            fs::write(&config, &fence.text).with_context(|| format!("cannot write {}", config.display()))?;
            let check = run_program(
                &binaries.join(format!("tunnel-{owner}")),
                &["config", "check", "--config"],
                &config,
            );
            report(tally, format!("{} line {}", page.path, fence.line), check?);
        }
    }
    for line in files.iter().flat_map(command_lines) {
        // Whatever is wrong before it is an error, and nothing is done.
        let outcome = run_program(&binaries.join(line.program), &line.words, Path::new("--help"));
        report(
            tally,
            format!("{}: {} {}", line.place, line.program, line.words.join(" ")),
            outcome?,
        );
    }
    for program in PROGRAMS {
        let schema = run_program(&binaries.join(program), &["config"], Path::new("schema"))?;
        let page = format!("docs/reference/{}-toml.md", program.trim_start_matches("tunnel-"));
        let text = files
            .iter()
            .find(|file| file.path == page)
            .map(|file| file.text.as_str());
        let missing = schema.and_then(|schema| keys::without_row(&schema, text.unwrap_or_default()));
        report(
            tally,
            format!("{page} has every key of {program}"),
            missing.map(|()| String::new()),
        );
    }
    Ok(())
}

fn report(tally: &mut Tally, name: String, outcome: Result<String, String>) {
    if let Err(said) = &outcome {
        println!("{name}: {}", said.trim());
    }
    tally.add(&name, outcome.is_ok());
}

/// Runs a program to its end: what it printed, or what it has to say against its arguments.
fn run_program(program: &Path, args: &[impl AsRef<str>], last: &Path) -> Result<Result<String, String>> {
    let output = Command::new(program)
        .args(args.iter().map(AsRef::as_ref))
        .arg(last)
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(if output.status.success() {
        Ok(said(&output.stdout))
    } else {
        Err(said(&output.stderr))
    })
}

/// The command lines in a page's shell examples, in a unit, or in a container's recipe.
fn command_lines(file: &TextFile) -> Vec<CommandLine> {
    let numbered: Vec<(usize, String)> = if file.is_markdown() {
        let shell = markdown::fences(&file.text)
            .into_iter()
            .filter(|fence| fence.info == "sh");
        shell.flat_map(|fence| joined(&fence.text, fence.line + 1)).collect()
    } else if file.path.ends_with(".service") {
        let lines = file.text.lines().enumerate();
        lines
            .filter_map(|(i, line)| Some((i + 1, line.strip_prefix("ExecStart=")?.to_owned())))
            .collect()
    } else if file.name().starts_with("Containerfile") {
        recipe(&file.text).into_iter().collect()
    } else {
        Vec::new()
    };
    let parse = |(line, text): (usize, String)| parse(&text, format!("{} line {line}", file.path));
    numbered.into_iter().filter_map(parse).collect()
}

/// Lines with their numbers, continued ones joined.
fn joined(text: &str, first: usize) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (i, line) in text.lines().enumerate() {
        let (part, continued) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
        match lines.last_mut().filter(|_| goes_on) {
            Some((_, before)) => before.push_str(part),
            None => lines.push((first + i, part.to_owned())),
        }
        goes_on = continued;
    }
    lines
}

/// What a container runs when nobody says otherwise.
fn recipe(text: &str) -> Option<(usize, String)> {
    let list = |key: &str| {
        text.lines()
            .enumerate()
            .find_map(|(i, line)| Some((i + 1, line.strip_prefix(key)?)))
    };
    let ((_, entry), (line, args)) = list("ENTRYPOINT ").zip(list("CMD "))?;
    let words: Vec<String> = [entry, args]
        .into_iter()
        .filter_map(|l| serde_json::from_str::<Vec<String>>(l).ok())
        .flatten()
        .collect();
    Some((line, words.join(" ")))
}

/// Reads a line that starts one of the programs, directly or by `cargo run`. Quotes are not needed so far.
fn parse(text: &str, place: String) -> Option<CommandLine> {
    let text = text.split(['|', '>', '<']).next().unwrap_or_default();
    let mut words = text.split_whitespace();
    let mut first = words.next()?;
    if first == "cargo" {
        first = words.by_ref().skip_while(|word| *word != "--bin").nth(1)?;
        words.by_ref().find(|word| *word == "--")?;
    }
    let name = PathBuf::from(first);
    let program = PROGRAMS
        .into_iter()
        .find(|program| name.file_name().is_some_and(|n| n == *program))?;
    Some(CommandLine {
        place,
        program,
        words: words.map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::file;

    #[test]
    fn a_program_that_refuses_is_heard() {
        let run = |program: &str| run_program(Path::new(program), &["x"], Path::new("y")).unwrap();
        assert!(run("true").is_ok());
        assert!(run("false").is_err());
    }

    #[test]
    fn command_lines_are_found_wherever_somebody_copies_them_from() {
        let page = "```sh\n# tunnel-cloud in a comment\ntunnel-cloud \\\n    serve --config C\n\
                    cargo run --bin tunnel-cloud -- lab --nodes 3\ntunnel-edge join - < token\nls\n```\n\
                    ```text\ntunnel-edge run\n```\n";
        let found = |path: &str, text: &str| -> Vec<String> {
            let lines = command_lines(&file(path, text));
            lines
                .iter()
                .map(|l| format!("{} {} {}", l.place, l.program, l.words.join(" ")))
                .collect()
        };
        assert_eq!(
            found("a.md", page),
            [
                "a.md line 3 tunnel-cloud serve --config C",
                "a.md line 5 tunnel-cloud lab --nodes 3",
                "a.md line 6 tunnel-edge join -"
            ]
        );
        assert_eq!(
            found("a.service", "[Service]\nExecStart=/x/tunnel-edge run\n"),
            ["a.service line 2 tunnel-edge run"]
        );
        let recipe = "FROM x\nENTRYPOINT [\"/x/tunnel-cloud\"]\nCMD [\"serve\", \"--config\", \"C\"]\n";
        assert_eq!(
            found("d/Containerfile.x", recipe),
            ["d/Containerfile.x line 3 tunnel-cloud serve --config C"]
        );
    }
}
