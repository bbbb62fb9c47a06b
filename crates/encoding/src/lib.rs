//! What becomes of the bytes of a stream between the two ends of the tunnel, so that they are fewer on a thin link.
//!
//! The carrier knows nothing of it, and what is outside neither: whoever writes to one end finds the same bytes at the
//! other. [`Compressed`] compresses a stream, [`scrape`] says the answers to scrapes of metrics as differences. What is on
//! the wire is described in `docs/reference/encodings.md`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod compressed;
pub mod scrape;

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tunnel_model::{Reason, Refusal};

pub use compressed::{Budget, Compressed, relay};

/// How much is read at once, in bytes.
const READ: usize = 16 << 10;

/// How many bytes went through the target's side of a stream.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// From the target.
    pub from_target: u64,
    /// To the target.
    pub to_target: u64,
}

/// Passes on all that comes, and then the end.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    moved: &mut u64,
) -> Result<(), Broken> {
    let mut buf = BytesMut::new();
    loop {
        buf.reserve(READ);
        if from.read_buf(&mut buf).await.map_err(Broken::From)? == 0 {
            return to.shutdown().await.map_err(Broken::To);
        }
        to.write_all(&buf).await.map_err(Broken::To)?;
        to.flush().await.map_err(Broken::To)?;
        *moved += buf.len() as u64;
        buf.clear();
    }
}

/// Which side of a copy broke.
enum Broken {
    From(io::Error),
    To(io::Error),
}

/// Why an end of the tunnel's stream failed, as far as the stream knows it.
fn refusal_of(error: &io::Error) -> Refusal {
    let known = error.get_ref().and_then(|source| source.downcast_ref::<Refusal>());
    known
        .cloned()
        .unwrap_or_else(|| Refusal::new(Reason::CarrierLost, format!("the stream broke: {error}")))
}

fn violation(what: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        Reason::Protocol,
        format!("the other end breaks the rules of encodings: {what}"),
    )
}

fn target_broke(error: &io::Error) -> Refusal {
    Refusal::new(
        Reason::TargetReset,
        format!("the connection at the other end broke: {error}"),
    )
}
