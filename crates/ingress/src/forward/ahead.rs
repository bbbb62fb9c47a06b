//! What a caller says before its target has answered.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tunnel_model::Refusal;

use crate::{
    Dialled,
    client::READ,
    session::{NotDialled, unless_gone},
};

/// How much may go out so, in bytes; more than a request takes, and less than any window.
const MOST: usize = 16 * 1024;

/// Waits for a stream and for its target, unless the caller gives up. What the caller says meanwhile goes out at once:
/// whoever speaks first waits for one round trip of the link and not for two. What it says beyond that is left in `ahead`.
///
/// # Errors
/// There is no stream, or nobody is left who wants it.
pub async fn open<S: Dialled>(
    caller: &mut (impl AsyncRead + Unpin),
    ahead: &mut BytesMut,
    opening: impl Future<Output = Result<S, Refusal>>,
) -> Result<S, NotDialled> {
    let mut stream = unless_gone(caller, ahead, opening).await?;
    let mut said = 0;
    while said < MOST {
        said += ahead.len();
        // Where that fails, the stream knows why.
        if stream.write_all(ahead).await.is_err() || stream.flush().await.is_err() {
            break;
        }
        ahead.clear();
        ahead.reserve(READ);
        tokio::select! {
            // What is there already travels with the open.
            biased;
            read = caller.read_buf(ahead) => match read {
                // Whoever reads on finds the end again.
                Ok(0) => break,
                Ok(_) => {}
                Err(_) => return Err(NotDialled::CallerGone),
            },
            established = stream.established() => return established.map(|()| stream).map_err(NotDialled::Refused),
        }
    }
    unless_gone(caller, ahead, stream.established()).await?;
    Ok(stream)
}
