//! Small servers for the hosts of a lab: what the program `e2e-host` offers.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use crate::lab::Host;
use crate::process::{Process, built};

const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// A server that a [`Host`] can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// TCP: sends back what it receives, and closes its side after the client has closed its own.
    Echo,
    /// HTTP/1.1: `GET /` greets, `GET /bytes/N` streams N bytes that count from 0 to 250
    /// over and over, `POST /echo` streams the body back, `GET /headers` shows the request's headers
    /// as JSON.
    Http,
    /// WebSocket: sends back text and binary messages.
    WsEcho,
}

impl Service {
    fn verb(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Http => "http",
            Self::WsEcho => "ws-echo",
        }
    }
}

impl Host {
    /// Runs a service on this host, and returns once it listens at `addr`. Its logs go to `logs`.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn serve(&self, service: Service, addr: SocketAddr, logs: &Path) -> anyhow::Result<Process> {
        let mut command = self.command(built("e2e-host")?);
        command.arg(service.verb()).arg(addr.port().to_string());
        command.arg("--bind").arg(addr.ip().to_string());
        let name = format!("{}-{}-{}", self.name(), service.verb(), addr.port());
        let process = Process::spawn(&name, command, logs)?;
        let ready = process.wait_for_line("\"ready\"", STARTS_WITHIN).await;
        ready.with_context(|| format!("{} at {addr} on {}", service.verb(), self.name()))?;
        Ok(process)
    }
}
