//! The gateway: edges dial out to it, operators reach the edges through it.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admin;
pub mod audit;
pub mod cli;
pub mod config;
pub mod dial;
pub mod directory;
pub mod gateway;
#[cfg(feature = "lab")]
pub mod lab;
pub mod oidc;
pub mod reload;
pub mod state;
pub mod store;
pub mod tunnel;
pub mod users;
