//! How an operator's command talks to the daemon on the same machine: HTTP/JSON over a Unix socket.
//!
//! The socket's mode (0600) is the credential: whoever may open it may administer the daemon. [`AdminListener`] binds
//! it so that no moment exists in which others could connect, and takes over a socket file only when nobody answers
//! on it. Errors travel as [`crate::error::ErrorBody`], and come out of [`UnixClient`] as the
//! [`CliError`](crate::error::CliError) that went in, exit code and all.

mod client;
mod lines;
mod server;

pub use client::UnixClient;
pub use lines::Lines;
pub use server::{AdminListener, BindError, Peer, serve};
