//! The agent, in this process and as the program that people run, against a small gateway made of the same libraries.
#![allow(clippy::unwrap_used)]

/// The running agent: streams, losses, renewal, the end.
mod agent;
/// What the link may carry in a day.
mod budget;
/// Flows of packets: both ways, refused, gone.
mod flows;
/// A gateway for one test.
mod gateway;
/// From a token to a node.
mod join;
mod journal;
/// Local clients on their way out.
mod outbound;
/// The command line, its errors and exit codes.
mod program;
/// The proxy for local clients.
mod proxy;
/// Another configuration for a running agent.
mod reload;
/// What a proxy refuses because two parsers might disagree about it.
#[allow(dead_code, reason = "other ways in use more of the table")]
#[path = "../../../crates/ingress/tests/ingress/smuggling.rs"]
mod smuggling;
/// How addresses may be spelled.
#[allow(dead_code, reason = "other ways in use more of the table")]
#[path = "../../../crates/model/tests/spellings/table.rs"]
mod spellings;
