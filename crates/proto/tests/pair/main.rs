//! Two sessions, a simulated carrier between them, and everything that can happen to it.
//!
//! | module | what belongs there |
//! |---|---|
//! | `streams` | one stream's life, and what may overtake what |
//! | `carriers` | carriers that come, fall silent, die and are left in order |
//! | `resume` | streams that go on over another carrier |
//! | `gibibyte` | much data over many cuts |
//! | `property` | any scenario: no stream hangs, no cut looks like an end |
//! | `turns` | one session whose streams wait for their turns, and an owner that looks only when it is told to |
//! | `hostile` | one session and a peer that breaks the rules, by hand-made frames |
//! | `corpus` | the fuzz targets, fed with the committed corpus and every truncation of it |
//! | `document` | `docs/protocol.md` says what the code does |
//!
//! `network`, `app` and `pair` are the simulation.
#![allow(clippy::unwrap_used)]

mod app;
mod network;
mod pair;

mod carriers;
mod corpus;
mod document;
mod gibibyte;
mod hostile;
mod property;
mod resume;
mod streams;
mod turns;
