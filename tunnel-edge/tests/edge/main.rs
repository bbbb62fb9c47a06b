//! The agent, in this process and as the program that people run, against a small gateway made of the same libraries.
#![allow(clippy::unwrap_used)]

/// The running agent: streams, losses, renewal, the end.
mod agent;
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
/// Another configuration for a running agent.
mod reload;
