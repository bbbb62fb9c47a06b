//! Forwards of byte streams.

use bytes::BytesMut;
use tunnel_model::TraceId;

use super::Forward;
use crate::{
    Dial, Way,
    client::Client,
    relay::relay,
    session::{NotDialled, Session},
};

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

/// Opens a stream and waits for its target.
async fn open<D: Dial>(
    session: &Session<D>,
    client: &mut Client,
    ahead: &mut BytesMut,
    forward: &Forward,
) -> Result<D::Stream, NotDialled> {
    let principal = forward.principal(&*session.behind, session.peer).await;
    let principal = principal.map_err(NotDialled::Refused)?;
    let (to, trace) = (forward.destination.clone(), TraceId::random(&mut rand::rng()));
    let request = session.request(Way::Forward, principal, to, forward.class, trace);
    super::open(client, ahead, session.behind.dial(request)).await
}
