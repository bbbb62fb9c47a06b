//! Two byte streams joined.

use std::{
    future::{Future, pending},
    io,
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::{Dialled, client::Client, halves::Breaks};

/// What each direction reads at once when it is busy, in bytes; an idle one holds [`IDLE`].
const BUSY: usize = 256 * 1024;
const IDLE: usize = 8 * 1024;

/// Joins a caller and a stream until both directions have ended, first passing on what each had sent ahead. The end of
/// a direction is passed on as such; whatever else happens breaks both sides.
pub(crate) async fn relay<S>(mut client: Client, from_client: BytesMut, stream: S, from_stream: BytesMut)
where
    S: Dialled,
{
    let cut = stream.cut();
    let (mut stream_read, mut stream_write) = tokio::io::split(stream);
    let (mut client_read, mut client_write) = client.split();
    let both = async {
        tokio::try_join!(
            pass(&mut client_read, &mut stream_write, from_client),
            pass(&mut stream_read, &mut client_write, from_stream),
        )
    };
    let joined = tokio::select! {
        biased;
        joined = both => joined,
        // A caller who takes nothing would keep what it may not have any more.
        () = cut => Err(io::ErrorKind::ConnectionReset.into()),
    };
    match joined {
        Ok(_) => client.finish().await,
        Err(error) => tracing::debug!(%error, "a relayed stream broke"),
    }
}

/// Passes bytes on until the reader ends, then ends the writer.
async fn pass(
    from: &mut (impl AsyncRead + Unpin + Breaks),
    to: &mut (impl AsyncWrite + Unpin + Breaks),
    mut buf: BytesMut,
) -> io::Result<()> {
    let mut room = IDLE;
    loop {
        if !buf.is_empty() {
            // Whoever stopped taking bytes would hide for ever that nobody sends them any more.
            tokio::select! {
                written = write(to, &buf) => written?,
                () = from.broken() => return Err(io::ErrorKind::ConnectionReset.into()),
            }
            buf.clear();
        }
        buf.reserve(room);
        let read = tokio::select! {
            read = from.read_buf(&mut buf) => read?,
            () = to.broken() => return Err(io::ErrorKind::ConnectionReset.into()),
        };
        if read == 0 {
            return to.shutdown().await;
        }
        if read == room {
            room = BUSY;
        }
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

impl<S> Breaks for ReadHalf<S> {
    fn broken(&self) -> impl Future<Output = ()> + Send {
        pending()
    }
}

impl<S> Breaks for WriteHalf<S> {
    fn broken(&self) -> impl Future<Output = ()> + Send {
        pending()
    }
}
