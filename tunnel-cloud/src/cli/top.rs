//! `top`: what passes, by node, class and principal. The gateway sums it up, for streams may be many.

use std::io::IsTerminal;

use tunnel_daemon::{
    error::CliError,
    output::{self, OutputFormat, Table},
};

use super::gateway::Gateway;
use crate::admin::api::Sample;

/// How many of each kind are shown to a person, the busiest first.
const SHOWN: usize = 10;
/// Clears a terminal and goes to its upper left corner (ECMA-48, ED and CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(super) async fn run(gateway: &Gateway, once: bool, format: OutputFormat) -> Result<(), CliError> {
    loop {
        // Each takes as long as it looks.
        let sample: Sample = gateway.get("/v1/streams/sample").await?;
        match format {
            OutputFormat::Json => return output::data(&output::to_json(&sample)?),
            OutputFormat::Table if once => return format.emit(&sample, |sample| table(sample, usize::MAX)),
            OutputFormat::Table => {
                if std::io::stdout().is_terminal() {
                    output::data(CLEAR)?;
                }
                output::data(&format!("{} streams open", sample.streams))?;
                format.emit(&sample, |sample| table(sample, SHOWN))?;
            }
        }
    }
}

fn table(sample: &Sample, most: usize) -> Table {
    let mut table = Table::new(["by", "name", "streams", "waiting", "up/s", "down/s", "bytes"]);
    for by in ["node", "class", "principal"] {
        for row in sample.rows.iter().filter(|row| row.by == by).take(most) {
            table.row([
                &row.by,
                &row.name,
                &row.streams.to_string(),
                &row.waiting.to_string(),
                &short(row.up_per_second),
                &short(row.down_per_second),
                &short(row.bytes),
            ]);
        }
    }
    table
}

/// A number of bytes in three digits and a binary unit.
fn short(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut shift = 0;
    while shift < 60 && bytes >> shift >= 1024 {
        shift += 10;
    }
    let unit = units[shift / 10];
    match shift {
        0 => format!("{bytes} B"),
        _ => {
            let tenths = (bytes >> (shift - 10)) * 10 / 1024;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 << 20, "10.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(short(bytes), text);
        }
    }
}
