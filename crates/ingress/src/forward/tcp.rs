//! Forwards of byte streams.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tunnel_model::TraceId;

use super::Forward;
use crate::{
    Dial, Dialled, Way,
    client::{Client, READ},
    relay::relay,
    session::{NotDialled, Session, unless_gone},
};

/// What a caller may say before its target has answered, in bytes; more than a request takes, and less than any window.
const AHEAD: usize = 16 * 1024;

/// Joins a connection with the target of its port.
pub(crate) async fn run<D: Dial>(session: &Session<D>, mut client: Client, forward: &Forward) {
    let mut ahead = BytesMut::new();
    match open(session, &mut client, &mut ahead, forward).await {
        Ok(stream) => {
            session.metrics.granted(Way::Forward);
            relay(client, ahead, stream, BytesMut::new()).await;
        }
        // Dropped, the connection is reset, which is all that can be said in a protocol that is not known.
        Err(NotDialled::Refused(refusal)) => session.refused(&refusal),
        Err(NotDialled::CallerGone) => {}
    }
}

/// Opens a stream and waits for its target. What the caller says meanwhile goes out at once: whoever speaks first waits for
/// one round trip of the link and not for two.
async fn open<D: Dial>(
    session: &Session<D>,
    client: &mut Client,
    ahead: &mut BytesMut,
    forward: &Forward,
) -> Result<D::Stream, NotDialled> {
    let principal = forward.principal(&*session.behind, session.peer).await;
    let principal = principal.map_err(NotDialled::Refused)?;
    let (to, trace) = (forward.destination.clone(), TraceId::random(&mut rand::rng()));
    let mut stream = session.dial(client, ahead, Way::Forward, principal, to, trace).await?;
    let mut said = 0;
    while said < AHEAD {
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
            read = client.read_buf(ahead) => match read {
                // The relay finds the end again.
                Ok(0) => break,
                Ok(_) => {}
                Err(_) => return Err(NotDialled::CallerGone),
            },
            established = stream.established() => return established.map(|()| stream).map_err(NotDialled::Refused),
        }
    }
    unless_gone(client, ahead, stream.established()).await?;
    Ok(stream)
}
