//! What only a real process, a real socket or a real signal can show.
//!
//! A test that needs a process of its own starts this binary again, in the role that [`child`] reads from the
//! environment.

#![allow(clippy::unwrap_used)]

mod admin;
mod child;
mod process;
