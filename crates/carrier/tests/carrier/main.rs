//! Sessions over real QUIC, and connections over TLS, on loopback, with a real cluster's certificates.
#![allow(clippy::unwrap_used)]

/// Links that lose, repeat, reorder and spoil what they carry.
mod bad_links;
/// What goes first where no rate is known.
mod classes;
/// A cluster, and both ends of a session.
mod cluster;
/// Dialling, handshakes, migration, and peers that mean harm.
mod connections;
/// One question and one answer.
mod exchange;
/// Datagrams by the million that are of no connection.
mod flood;
/// Packets in datagrams: both ways, large, early, unknown, too many.
mod flows;
/// What a link carries, and who keeps to it.
mod link_rate;
mod paced;
/// The race of QUIC and TLS.
mod race;
/// Streams joined with sockets.
mod relay;
/// Streams that go on over another connection.
mod resume;
/// Streams: opened, refused, ended, broken, bounded.
mod streams;
/// Connections over TLS and TCP.
mod tls;
