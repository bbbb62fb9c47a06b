//! `tunnel-cloud` as an operator meets it: the real binary, its output, its exit codes.
#![allow(clippy::unwrap_used)]

/// `audit`, and what it reads.
mod audit;

/// `init`: all or nothing.
mod init;

/// Commands that look at and change the gateway's state, while none runs.
mod commands;

/// Configuration files, good and bad.
mod config;

/// `serve`, and commands beside it.
mod serve;

/// Rules, who they let through, and how they are changed.
mod rights;

/// `lab`: the whole path in one process.
mod lab;

/// An edge that asks for what is not its own.
mod hostile;

mod operator;
