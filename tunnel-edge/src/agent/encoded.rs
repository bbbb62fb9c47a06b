//! Streams whose bytes are compressed on their way, or are scrapes said by their differences.

use tokio::net::TcpStream;
use tunnel_carrier::{Answer, Relayed, Stream};
use tunnel_encoding::{
    Budget, Compressed, Moved, relay,
    scrape::{Encoders, Room, serve},
};
use tunnel_model::{Encoding, Refusal, Target};

use super::{Shared, streams::cut};

/// What is kept of the pages of all targets, in bytes: some four times the size of each page that is scraped.
const PAGES: usize = 32 << 20;

/// What compressed streams may take, in bytes; beyond it they go on uncompressed.
const COMPRESSION: usize = 40 << 20;

/// What an agent keeps for them.
#[derive(Debug)]
pub(super) struct Encodings {
    encoders: Encoders,
    compression: Budget,
}

impl Encodings {
    pub(super) fn new() -> Self {
        Self {
            encoders: Encoders::new(Room {
                of_one: PAGES,
                in_all: PAGES,
            }),
            compression: Budget::new(COMPRESSION),
        }
    }
}

/// A stream and what is made of it.
enum Encoded {
    Compressed(Box<Compressed<Stream>>),
    Scrapes(Box<Stream>),
}

/// Accepts a stream and joins it with its target, until it has lost its right; `None` if the process ended first.
pub(super) async fn join(
    shared: &Shared,
    mut local: TcpStream,
    answer: Answer,
    (encoding, target): (Encoding, &Target),
    lost: impl Future<Output = Refusal>,
) -> Result<Option<Relayed>, Refusal> {
    let stream = answer.accept().await.inspect_err(|_| cut(&local))?;
    let _open = shared.metrics.stream_opened();
    let cutting = shared.tasks.cutting();
    let Encodings { encoders, compression } = &shared.encodings;
    let mut encoded = match encoding {
        Encoding::Scrapes => Encoded::Scrapes(Box::new(stream)),
        Encoding::Raw | Encoding::Compressed => Encoded::Compressed(Box::new(Compressed::new(stream, compression))),
    };
    let mut moved = Moved::default();
    let serving = async {
        match &mut encoded {
            Encoded::Scrapes(stream) => {
                serve(&mut local, &mut **stream, encoders, &target.to_string(), &mut moved).await
            }
            Encoded::Compressed(stream) => relay(&mut local, stream, &mut moved).await,
        }
    };
    let end = tokio::select! {
        biased;
        end = serving => Some(end),
        why = lost => Some(Err(why)),
        () = cutting.cancelled() => None,
    };
    if !matches!(end, Some(Ok(()))) {
        cut(&local);
    }
    if let Some(Err(refusal)) = &end {
        let stream = match encoded {
            Encoded::Scrapes(stream) => *stream,
            Encoded::Compressed(compressed) => compressed.into_stream(),
        };
        stream.reset(refusal);
    }
    Ok(end.map(|end| Relayed {
        sent: moved.from_target,
        received: moved.to_target,
        end,
    }))
}
