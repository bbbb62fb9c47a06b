//! What a command prints: data on stdout, as a table for people or JSON for programs, and messages on stderr.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use crate::error::{CliError, Exit, OneLine};

/// The version every JSON document names in its `schema` member.
pub const SCHEMA: &str = "v1";

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Aligned columns for people; the layout may change
    #[default]
    Table,
    /// One JSON document with a schema version, for programs
    Json,
}

/// The `-o` argument; flatten it into a command line.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct OutputArg {
    /// How to print data
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        global = true,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub output: OutputFormat,
}

impl OutputFormat {
    /// Prints `document` as JSON, or the table that `table` makes of it.
    ///
    /// `document` must serialise as a JSON object; `"schema":"v1"` is put in front of its members.
    pub fn emit<T: Serialize>(self, document: &T, table: impl FnOnce(&T) -> Table) -> Result<(), CliError> {
        match self {
            Self::Table => data(&table(document).render()),
            Self::Json => data(&to_json(document)?),
        }
    }
}

/// Rows under upper-case headings, without borders.
///
/// Cells are made safe for a terminal: a control character, which a label or a reason set elsewhere may hold, shows
/// as a space.
#[derive(Debug)]
pub struct Table(comfy_table::Table);

impl Table {
    /// A table with these headings and no rows.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(NOTHING).set_header(headings.map(str::to_uppercase));
        for column in table.column_iter_mut() {
            column.set_padding((0, 3));
        }
        Self(table)
    }

    /// Adds a row; an empty cell shows as `-`.
    pub fn row<const N: usize>(&mut self, cells: [&str; N]) -> &mut Self {
        self.0.add_row(cells.map(|cell| {
            if cell.is_empty() {
                "-".to_owned()
            } else {
                OneLine(cell).to_string()
            }
        }));
        self
    }

    /// The text, without trailing blanks and without a final line break.
    pub fn render(&self) -> String {
        let lines: Vec<String> = self.0.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }
}

/// Prints a line (or several) of data to stdout.
///
/// # Errors
/// Where the reader has closed the pipe, the error carries [`Exit::Ok`]: return it, and the process ends quietly.
pub fn data(text: &str) -> Result<(), CliError> {
    write_line(&mut io::stdout().lock(), text)
}

/// Prints a message for the person to stderr. A message that cannot be written is nobody's loss.
pub fn message(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A JSON document with its schema version, in one line.
pub fn to_json<T: Serialize>(document: &T) -> Result<String, CliError> {
    #[derive(Serialize)]
    struct Versioned<'a, T> {
        schema: &'static str,
        #[serde(flatten)]
        document: &'a T,
    }
    serde_json::to_string(&Versioned {
        schema: SCHEMA,
        document,
    })
    .map_err(|error| {
        CliError::new(
            Exit::Failure,
            "output-json",
            format!("cannot write the answer as JSON: {error}"),
        )
    })
}

fn write_line(out: &mut impl Write, text: &str) -> Result<(), CliError> {
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => CliError::new(Exit::Ok, "output-closed", "the reader of stdout went away"),
            _ => CliError::new(
                Exit::Failure,
                "output-write",
                format!("cannot write to stdout: {error}"),
            ),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_plain_columns_under_upper_case_headings() {
        let mut table = Table::new(["name", "state", "since"]);
        table
            .row(["alpha", "online", "09:00"])
            .row(["a-longer-name", "offline", ""]);
        insta::assert_snapshot!(table.render(), @r"
        NAME            STATE     SINCE
        alpha           online    09:00
        a-longer-name   offline   -
        ");
    }

    #[test]
    fn a_cell_cannot_break_the_table_or_drive_the_terminal() {
        let mut table = Table::new(["label"]);
        table.row(["evil\nrow\x1b[2J"]);
        assert_eq!(table.render(), "LABEL\nevil row [2J");
    }

    #[test]
    fn a_json_document_starts_with_its_schema() {
        #[derive(Serialize)]
        struct Nodes {
            nodes: Vec<&'static str>,
        }
        assert_eq!(
            to_json(&Nodes { nodes: vec!["alpha"] }).unwrap(),
            r#"{"schema":"v1","nodes":["alpha"]}"#
        );
    }

    #[test]
    fn a_reader_that_went_away_ends_the_command_quietly_and_a_full_disk_does_not() {
        assert_eq!(
            write_line(&mut Failing(io::ErrorKind::BrokenPipe), "x")
                .unwrap_err()
                .exit(),
            Exit::Ok
        );
        assert_eq!(
            write_line(&mut Failing(io::ErrorKind::StorageFull), "x")
                .unwrap_err()
                .exit(),
            Exit::Failure
        );
    }

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
