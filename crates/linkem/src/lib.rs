//! A seeded link emulator: what a thin, lossy, sometimes cut link does to packets.
//!
//! [`Link`] is one direction and does no IO: packets go in with [`Link::handle_packet`], come out of
//! [`Link::poll_transmit`] when their time has come, and [`Link::poll_timeout`] says when to look
//! again. The same seed, settings and input give the same output, to the bit.
//!
//! Two ways put real traffic through a pair of them:
//! - [`relay`]: UDP datagrams between sockets, in one process and without privileges;
//! - [`tun`]: IP packets between two network namespaces, for tests with real NATs (needs root).
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod duplex;
mod fate;
mod link;
pub mod relay;
mod spec;
mod stats;
#[cfg(target_os = "linux")]
pub mod tun;

pub use config::{DEFAULT_QUEUE_BYTES, LinkConfig, LinkPair, Loss, NotAProbability, Probability};
pub use link::{IN_TRANSIT_LIMIT_BYTES, Link, Packet};
pub use spec::ParseLinkError;
pub use stats::{LinkStats, PairStats};
