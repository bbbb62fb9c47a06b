//! Scrapes of metrics over one stream: HTTP at both of its ends, and between them each answer as the
//! difference against the one before.
//!
//! ```text
//! caller ── HTTP ──▶ Scraped ── ask: head, base ──────────▶ serve ── HTTP ──▶ target
//!        ◀─ HTTP ──  (gateway) ◀── answer: head, difference  (edge)  ◀─ HTTP ──
//! ```
//!
//! Whoever opens the stream uses a [`Scraped`] as if it were the stream itself, and whoever accepts it calls [`serve`].
//! Neither end invents anything: each request of a caller becomes one of the target's, and each answer is the target's own,
//! to the last byte of its body. What is no plain `GET`, or gets an answer that cannot be held, travels as it is from
//! there on. Messages are described in `docs/reference/encodings.md`.
//!
//! The same request of several callers at once costs one transfer: those who come while it runs wait for its answer
//! ([`Scrapes`]). Each has a stream of its own all the same, with rights of its own.
//!
//! | module | what |
//! |---|---|
//! | `head` | requests that are scrapes, answers that can be held |
//! | `body` | where an answer's body ends |
//! | `wire` | messages |
//! | `bases` | what is kept of each target, within bounds |
//! | `flights` | scrapes that run |
//! | `edge` | the end beside the target |
//! | `gateway` | the end beside the caller: the conversation |
//! | `scraped` | and what it looks like from outside |

mod bases;
mod body;
mod edge;
mod flights;
mod gateway;
mod head;
mod scraped;
#[cfg(test)]
mod tests;
mod wire;

pub use bases::{Encoders, Room};
pub use edge::serve;
pub use gateway::{Scrapes, Served};
pub use scraped::Scraped;

/// The longest body that is said by its difference, in bytes. Longer ones travel as they are.
pub const MAX_BODY: usize = 4 << 20;
