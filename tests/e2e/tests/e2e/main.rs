//! Real clients across real NATs.
#![allow(clippy::unwrap_used)]

/// The lab itself: its NATs are NATs, its links are links, and nothing leaks in or between labs.
mod lab;
