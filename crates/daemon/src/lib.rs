//! The life of a process, and the command-line conventions that `tunnel-cloud` and `tunnel-edge` share.
//!
//! A process is born from its command line ([`cli`], [`output`], [`error`]) and a configuration file ([`config`]). It
//! says what it does ([`logs`], [`metrics`]) and whether it works ([`readiness`], [`probes`], [`sdnotify`]); it takes
//! connections without falling over when descriptors or memory run out ([`accept`], [`listen`], [`udp`], [`memory`]); it answers its operator on
//! a Unix socket ([`admin`]); and it ends in order: stop accepting, drain, flush, each with a deadline ([`shutdown`]).
//!
//! In a `main` these parts meet in this order:
//!
//! 1. parse the command line with clap (a usage error exits with 2) and enter [`cli::run`];
//! 2. [`config::load`] the raw configuration, let the binary turn it into what it means;
//! 3. [`logs::init`], then make [`metrics::Metrics`], [`readiness::Readiness`] and [`shutdown::Tasks`];
//! 4. bind listeners, wrap each in an [`accept::Acceptor`], spawn each loop with
//!    [`shutdown::Tasks::spawn_critical`];
//! 5. [`sdnotify::ready`] once [`readiness::Readiness::wait_ready`] returns;
//! 6. [`shutdown::run`], which returns when the process may exit.
//!
//! Every error that a person sees is one line, `error[code]: what failed (what to do)`; the code is stable, and the
//! exit code tells a script what kind of failure it was ([`error::Exit`]).

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod accept;
pub mod admin;
pub mod cli;
pub mod config;
pub mod error;
pub mod file;
mod heap;
mod http;
pub mod listen;
pub mod logs;
pub mod memory;
pub mod metrics;
pub mod output;
pub mod probes;
pub mod readiness;
pub mod sdnotify;
pub mod shutdown;
pub mod udp;
