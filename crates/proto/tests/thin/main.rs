//! Two nodes on a thin link: schedulers and rate models at both ends, a carrier in the manner of QUIC between them, and the
//! project's link emulator, all in simulated time.
//!
//! | module | what belongs there |
//! |---|---|
//! | `typing` | what somebody who types notices of transfers beside it |
//! | `links` | links with long round trips, losses, and rates that change |
//! | `queues` | links of all kinds, whose queues stay short |
//! | `busy` | machines that have other things to do |
//! | `order` | a scheduler alone: who goes first, who waits, who starves nobody |
//!
//! `carrier`, `host` and `world` are the simulation.
#![allow(clippy::unwrap_used)]

mod carrier;
mod host;
mod world;

mod busy;
mod links;
mod order;
mod queues;
mod typing;
