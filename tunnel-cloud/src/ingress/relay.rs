//! Two byte streams joined.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::client::Client;

/// What each direction reads at once when it is busy, in bytes; an idle one holds [`IDLE`].
const BUSY: usize = 64 * 1024;
const IDLE: usize = 8 * 1024;

/// Joins a caller and a stream until both directions have ended, first passing on what each had sent ahead. The end of
/// a direction is passed on as such; whatever else happens breaks both sides.
pub(crate) async fn relay<S>(mut client: Client, from_client: BytesMut, stream: S, from_stream: BytesMut)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut stream_read, mut stream_write) = tokio::io::split(stream);
    let (mut client_read, mut client_write) = client.split();
    let joined = tokio::try_join!(
        pass(&mut client_read, &mut stream_write, from_client),
        pass(&mut stream_read, &mut client_write, from_stream),
    );
    match joined {
        Ok(_) => client.finish().await,
        Err(error) => tracing::debug!(%error, "a relayed stream broke"),
    }
}

/// Passes bytes on until the reader ends, then ends the writer.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut buf: BytesMut,
) -> io::Result<()> {
    let mut room = IDLE;
    loop {
        if !buf.is_empty() {
            to.write_all(&buf).await?;
            to.flush().await?;
            buf.clear();
        }
        buf.reserve(room);
        let read = from.read_buf(&mut buf).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        if read == room {
            room = BUSY;
        }
    }
}
