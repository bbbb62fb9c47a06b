//! `policy`, `explain` and `reload`: who may reach what, and why not.

use hyper::Method;
use tunnel_daemon::{
    error::{CliError, Exit},
    output::{self, OutputFormat, Table},
};
use tunnel_model::Reason;

use super::{PolicyCommand, gateway::Gateway};
use crate::admin::{
    api::{Decision, Explanation, HopVerdict, Question, Reloaded},
    exit_of,
};

pub(super) async fn policy(command: PolicyCommand, gateway: &Gateway, format: OutputFormat) -> Result<(), CliError> {
    let PolicyCommand::Test { subject, destination } = command;
    let question = Question { subject, destination };
    let decision: Decision = gateway
        .request(Method::POST, "/v1/policy/test", Some(&question))
        .await?;
    match (&decision.rule, format) {
        (_, OutputFormat::Json) => output::data(&output::to_json(&decision)?)?,
        (Some(rule), OutputFormat::Table) => output::data(&format!("allowed by rule {}: {}", rule.index, rule.text))?,
        (None, OutputFormat::Table) => {}
    }
    if decision.allowed {
        return Ok(());
    }
    let Question { subject, destination } = question;
    let why = decision.why.unwrap_or_default();
    let message = format!("{subject} may not reach {destination}: {why}");
    Err(CliError::new(Exit::Denied, Reason::Denied.as_str(), message)
        .with_hint("rules are in the gateway's configuration file, as [[rule]]"))
}

pub(super) async fn explain(
    destination: String,
    subject: String,
    gateway: &Gateway,
    format: OutputFormat,
) -> Result<(), CliError> {
    let question = Question { subject, destination };
    let explanation: Explanation = gateway.request(Method::POST, "/v1/explain", Some(&question)).await?;
    format.emit(&explanation, table)?;
    let Some(no) = explanation.hops.iter().find(|hop| hop.verdict == HopVerdict::No) else {
        return Ok(());
    };
    let code = no.code.as_deref().unwrap_or_default();
    let reason = Reason::ALL.iter().find(|reason| reason.as_str() == code);
    let reason = reason.copied().unwrap_or(Reason::Internal);
    let message = format!("hop \"{}\" says no: {}", no.hop.as_str(), no.detail);
    Err(CliError::new(exit_of(reason), reason.as_str(), message))
}

fn table(explanation: &Explanation) -> Table {
    let mut table = Table::new(["hop", "verdict", "code", "detail"]);
    for hop in &explanation.hops {
        let verdict = match hop.verdict {
            HopVerdict::Ok => "ok",
            HopVerdict::No => "no",
            HopVerdict::NotAsked => "-",
        };
        table.row([
            hop.hop.as_str(),
            verdict,
            hop.code.as_deref().unwrap_or(""),
            &hop.detail,
        ]);
    }
    table
}

pub(super) async fn reload(gateway: &Gateway, format: OutputFormat) -> Result<(), CliError> {
    let reloaded: Reloaded = gateway.request(Method::POST, "/v1/reload", None::<&()>).await?;
    format.emit(&reloaded, |reloaded| {
        let mut table = Table::new(["key", "change"]);
        for key in &reloaded.applied {
            table.row([key.as_str(), "applied"]);
        }
        for key in &reloaded.needs_restart {
            table.row([key.as_str(), "needs a restart"]);
        }
        table
    })
}
