//! The lab: real clients across real NATs.
//!
//! A [`Lab`] is a small internet in network namespaces: a gateway, users, and sites behind NATs of
//! their own at the end of emulated links. Programs run in its [hosts](lab::Host), watched by
//! [`Process`]. Everything goes when the lab is dropped, and several labs live side by side.
//!
//! A test says first what it needs (`require!(Need::Lab)`), and is skipped aloud where that is
//! missing.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod clock;
pub mod lab;
mod process;
pub mod require;
mod service;
mod wait;

pub use clock::FakeClock;
pub use lab::{Lab, Nat, Site};
pub use process::{Process, built, run, run_with_input};
pub use require::Need;
pub use service::Service;
pub use wait::wait_until;
