//! The ways in, from real clients over real sockets to real targets; only the tunnel in between is
//! missing: the gateway behind these ways in dials the targets itself.
//!
//! | module | what belongs there |
//! |---|---|
//! | `connect` | HTTP CONNECT: credentials, refusals, both directions' ends |
//! | `plain` | plain requests: keep-alive, reuse, bodies, what is cut |
//! | `upgrade` | WebSocket and other protocols after HTTP |
//! | `socks` | SOCKS5 |
//! | `tls` | all of it within TLS, and client certificates |
//! | `host` | HTTP to a port where `Host` decides |
//! | `sni` | TLS to a port where its server name decides |
//! | `forward` | ports that always lead to the same target |
//! | `smuggling` | the table of what `strict` refuses |
//! | `addresses` | routes to addresses, and spellings that lead nowhere |
//! | `strict` | what is refused because two parsers might disagree about it |
//! | `limits` | deadlines, bounds, drain |
//! | `clients` | programs that people use |
#![allow(clippy::unwrap_used)]

mod addresses;
mod caller;
mod clients;
mod connect;
mod forward;
mod host;
mod limits;
mod plain;
mod proxy;
mod smuggling;
mod sni;
mod socks;
#[path = "../../../model/tests/spellings/table.rs"]
mod spellings;
mod strict;
mod target;
mod tls;
mod upgrade;
