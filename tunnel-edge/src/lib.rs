//! The agent of an edge machine: dials out to the gateway and serves what its configuration names.
//!
//! [`config`] reads `edge.toml`, [`identity`] the keys that [`join`] got, [`agent`] is the running agent, and [`targets`]
//! judges and dials what the gateway asks for; [`outbound`] lets local clients out to services beyond the gateway.
//! [`journal`] remembers when there was no link, and why. [`reload`] changes the configuration of one that runs. [`cli`] is the program around them. Nothing here is global: several
//! [`agent::Agent`]s run in one process.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admin;
pub mod agent;
mod budget;
pub mod check;
pub mod cli;
pub mod config;
mod echo;
mod fault;
pub mod identity;
pub mod join;
pub mod journal;
pub mod metrics;
pub mod outbound;
pub mod proxies;
pub mod reload;
mod stages;
pub mod targets;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Name and version, as the gateway shows them.
pub const SOFTWARE: &str = concat!("tunnel-edge ", env!("CARGO_PKG_VERSION"));

/// What this machine calls itself.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
