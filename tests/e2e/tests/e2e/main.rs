//! Real clients across real NATs.
//!
//! Where `TUNNEL_E2E_LOGS` names a directory, the logs of all programs stay there, by test.
#![allow(clippy::unwrap_used)]

/// Unmodified clients, through a gateway, to an edge behind a NAT.
mod clients;
/// The lab itself: its NATs are NATs, its links are links, and nothing leaks in or between labs.
mod lab;
/// From the first start to the last: joining, owning, failing, stopping.
mod lifecycle;
/// What NATs and links do to streams that run.
mod nat;
/// Clients at an edge, on their way to the cloud side and to other edges.
mod outbound;
/// Who may reach what, and what becomes of streams when that changes.
mod rights;
/// Streams of unmodified clients that go on when the link comes back.
mod survive;

// Helpers.
mod dns;
mod stream;
mod world;
