//! Copies of the records for the machine's own logs. Best effort: what cannot be sent at once is counted, the file is
//! the truth.

use std::{
    io,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AuditOutput {
    /// The log's own files
    File,
    /// The machine's syslog, at /dev/log
    Syslog,
    /// The machine's journal
    Journald,
}

impl AuditOutput {
    /// The output as it stands in configuration and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Syslog => "syslog",
            Self::Journald => "journald",
        }
    }

    fn socket(self) -> Option<&'static Path> {
        match self {
            Self::File => None,
            Self::Syslog => Some(Path::new("/dev/log")),
            Self::Journald => Some(Path::new("/run/systemd/journal/socket")),
        }
    }
}

/// The facility `authpriv` with the severities of RFC 5424 section 6.2.1.
const AUTHPRIV: u8 = 10 << 3;
const WARNING: u8 = 4;
const INFO: u8 = 6;

/// The name under which the records are found there.
const IDENTIFIER: &str = "tunnel-cloud-audit";

/// One way to the machine's logs.
#[derive(Debug)]
pub(super) struct Copies {
    pub(super) output: AuditOutput,
    path: PathBuf,
    socket: UnixDatagram,
}

impl Copies {
    /// The outputs among these that are not the file.
    pub(super) fn open(outputs: &[AuditOutput]) -> io::Result<Vec<Self>> {
        let sockets = outputs.iter().filter_map(|&output| Some((output, output.socket()?)));
        sockets.map(|(output, path)| Self::to(output, path)).collect()
    }

    /// An output whose socket has this name; it need not be there yet.
    pub(super) fn to(output: AuditOutput, path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            output,
            path: path.to_owned(),
            socket,
        })
    }

    /// Sends a record, given without its line break, or says why it could not be sent at once.
    pub(super) fn send(&self, line: &[u8], is_refusal: bool) -> io::Result<()> {
        let severity = if is_refusal { WARNING } else { INFO };
        let text = String::from_utf8_lossy(line);
        let message = match self.output {
            AuditOutput::File => return Ok(()),
            // As RFC 3164 section 4.1, without a timestamp: a local daemon adds its own, and the record has one.
            AuditOutput::Syslog => {
                let priority = AUTHPRIV | severity;
                format!("<{priority}>{IDENTIFIER}[{}]: {text}", std::process::id())
            }
            // The journal's native protocol: members on lines, none of which holds a line break.
            AuditOutput::Journald => format!(
                "PRIORITY={severity}\nSYSLOG_FACILITY={}\nSYSLOG_IDENTIFIER={IDENTIFIER}\nMESSAGE={text}\n",
                AUTHPRIV >> 3
            ),
        };
        self.socket.send_to(message.as_bytes(), &self.path).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syslog_gets_a_record_as_rfc_3164_says() {
        let got = sent(AuditOutput::Syslog, true);
        let expected = format!("<84>tunnel-cloud-audit[{}]: {{\"seq\":1}}", std::process::id());
        assert_eq!(got, expected);
        assert!(sent(AuditOutput::Syslog, false).starts_with("<86>"));
    }

    #[test]
    fn the_journal_gets_a_record_as_fields() {
        assert_eq!(
            sent(AuditOutput::Journald, false),
            "PRIORITY=6\nSYSLOG_FACILITY=10\nSYSLOG_IDENTIFIER=tunnel-cloud-audit\nMESSAGE={\"seq\":1}\n"
        );
    }

    #[test]
    fn nobody_waits_for_a_socket_that_is_not_there_or_full() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let copies = Copies::to(AuditOutput::Syslog, &path).unwrap();
        assert!(copies.send(b"{}", false).is_err());
        let _reader = UnixDatagram::bind(&path).unwrap();
        let sent = (0..100_000).take_while(|_| copies.send(b"{}", false).is_ok()).count();
        assert!((1..100_000).contains(&sent), "{sent}");
    }

    fn sent(output: AuditOutput, is_refusal: bool) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let reader = UnixDatagram::bind(&path).unwrap();
        let copies = Copies::to(output, &path).unwrap();
        copies.send(b"{\"seq\":1}", is_refusal).unwrap();
        let mut buf = [0; 4096];
        let len = reader.recv(&mut buf).unwrap();
        String::from_utf8(buf[..len].to_vec()).unwrap()
    }
}
