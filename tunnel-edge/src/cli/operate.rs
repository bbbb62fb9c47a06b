//! Commands that talk to the running agent.

use std::time::Duration;

use hyper::Method;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tunnel_daemon::{
    admin::UnixClient,
    error::{CliError, Exit},
    output::{OutputFormat, Table},
};

use crate::{
    agent::Status,
    check,
    config::Config,
    journal::History,
    reload::{Configuration, Reloaded, Trust},
    stages::Stage,
};

/// How often a socket is looked for that is not there yet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

fn client(config: &Config) -> UnixClient {
    UnixClient::new(config.socket(), "tunnel-edge")
}

pub(super) async fn status(config: &Config, format: OutputFormat) -> Result<(), CliError> {
    let status: Status = client(config).get("/v1/status").await?;
    format.emit(&status, status_table)
}

pub(super) fn history(config: &Config, format: OutputFormat) -> Result<(), CliError> {
    let history = History::read(&config.state).map_err(|error| {
        let message = format!("cannot read the link journal in {}: {error}", config.state.display());
        CliError::new(Exit::Failure, "journal-read", message)
    })?;
    format.emit(&history, |history| {
        let mut table = Table::new(["begun", "lasted", "cause", "sent", "received", "message"]);
        for loss in &history.losses {
            let lasted = loss.lasted_seconds.map(|seconds| format!("{seconds:.1} s"));
            table.row([
                &loss.begun_at,
                lasted.as_deref().unwrap_or("not over"),
                loss.cause.as_str(),
                &format!("{} bytes", loss.sent_bytes),
                &format!("{} bytes", loss.received_bytes),
                &loss.message,
            ]);
        }
        table
    })
}

pub(super) async fn reload(config: &Config, within: Option<Duration>, format: OutputFormat) -> Result<(), CliError> {
    let path = match within {
        Some(within) => format!("/v1/reload/{}", within.as_secs()),
        None => "/v1/reload".to_owned(),
    };
    let done: Reloaded = client(config).request(Method::POST, &path, None::<&()>).await?;
    format.emit(&done, |done| {
        let mut table = Table::new(["what", "value"]);
        table
            .row(["applied", &done.applied.join(", ")])
            .row(["needs a restart", &done.restart.join(", ")])
            .row(["configuration", &trust(&done.configuration)]);
        table
    })
}

pub(super) async fn confirm(config: &Config, format: OutputFormat) -> Result<(), CliError> {
    let found: Configuration = client(config).request(Method::POST, "/v1/confirm", None::<&()>).await?;
    format.emit(&found, |found| {
        let mut table = Table::new(["what", "value"]);
        table.row(["configuration", &trust(found)]);
        table
    })
}

fn trust(configuration: &Configuration) -> String {
    match (configuration.state, configuration.seconds_left) {
        (Trust::Pending, left) => {
            let who = configuration.confirmed_by.as_deref().unwrap_or_default();
            format!(
                "pending, rolled back in {} s unless confirmed by {who}",
                left.unwrap_or_default()
            )
        }
        (Trust::Confirmed, _) => "confirmed".to_owned(),
        (Trust::RolledBack, _) => "rolled back, the file is not in force".to_owned(),
    }
}

/// Waits for the agent to start, and for it to be connected.
pub(super) async fn wait(config: &Config, timeout: Duration, format: OutputFormat) -> Result<(), CliError> {
    let deadline = Instant::now() + timeout;
    let last = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = client(config).timeout(left).get::<Status>("/v1/connected").await;
        match waited {
            Ok(status) => return format.emit(&status, status_table),
            Err(error) if error.exit() == Exit::Timeout => break error,
            Err(error) if !matches!(error.code(), "admin-no-socket" | "admin-no-answer") => return Err(error),
            Err(error) if left.is_zero() => break error,
            Err(_) => sleep(LOOK_AGAIN.min(left)).await,
        }
    };
    let why = match client(config).get::<Status>("/v1/status").await {
        Ok(status) => status.message.unwrap_or_else(|| "it is still connecting".to_owned()),
        Err(_) => last.message().to_owned(),
    };
    let message = format!("not connected within {} s: {why}", timeout.as_secs());
    Err(CliError::new(Exit::Timeout, "wait-timeout", message).with_hint("`tunnel-edge check` shows how far it gets"))
}

#[derive(Serialize)]
struct Findings {
    ok: bool,
    stages: Vec<Stage>,
}

pub(super) async fn check(config: &Config, format: OutputFormat) -> Result<(), CliError> {
    let stages = check::check(config, &client(config)).await?;
    let failed = stages.iter().filter(|stage| !stage.ok).count();
    let findings = Findings {
        ok: failed == 0,
        stages,
    };
    format.emit(&findings, |findings| {
        let mut table = Table::new(["stage", "result", "time", "detail"]);
        for stage in &findings.stages {
            let result = if stage.ok { "ok" } else { "failed" };
            table.row([&stage.name, result, &format!("{} ms", stage.millis), &stage.detail]);
        }
        table
    })?;
    if failed == 0 {
        return Ok(());
    }
    let message = format!("{failed} of {} steps failed", findings.stages.len());
    Err(CliError::new(Exit::Findings, "check-findings", message))
}

fn status_table(status: &Status) -> Table {
    let mut table = Table::new(["what", "value"]);
    let mut row = |what: &str, value: &str| {
        table.row([what, value]);
    };
    let phase = serde_json::json!(status.state);
    row("state", phase.as_str().unwrap_or_default());
    row("since", &status.since);
    row("name", status.name.as_deref().unwrap_or_default());
    row("node", &status.node.to_string());
    row("gateway", status.gateway.as_deref().unwrap_or_default());
    if let Some(message) = &status.message {
        row("because", message);
    }
    if let Some(link) = &status.link {
        row("carrier", &link.carrier);
        row("round trip", &format!("{:.1} ms", link.rtt_ms));
        if link.mtu > 0 {
            row("mtu", &link.mtu.to_string());
        }
        row("streams", &link.streams.to_string());
        for (class, streams) in &link.classes {
            row(&format!("streams, {class}"), &streams.to_string());
        }
        row("sent", &format!("{} bytes", link.sent_bytes));
        row("received", &format!("{} bytes", link.received_bytes));
        row("lost", &format!("{} packets", link.lost_packets));
        if let Some(pace) = &link.pace {
            let source = if pace.measured { "measured" } else { "configured" };
            let rate = pace.bits_per_second as f64 / 1e6;
            row("sends at most", &format!("{rate:.2} Mbit/s, {source}"));
        }
    }
    for share in status.today.iter().flat_map(|today| &today.carried) {
        let budget = share.budget.map(|budget| format!(" of {budget}")).unwrap_or_default();
        row(
            &format!("today, {}", share.of),
            &format!("{}{budget} bytes", share.bytes),
        );
    }
    if let Some(configuration) = &status.configuration {
        row("configuration", &trust(configuration));
    }
    row("certificate", &format!("expires {}", status.certificate_expires));
    for service in &status.services {
        row("service", &format!("{} at {}", service.name, service.target));
    }
    for subnet in &status.subnets {
        row("advertises", &subnet.to_string());
    }
    row("version", &status.version);
    table
}
