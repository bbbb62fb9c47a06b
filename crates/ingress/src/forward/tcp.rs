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
    let opened = match forward.principal(&*session.behind, session.peer).await {
        Ok(principal) => {
            let trace = TraceId::random(&mut rand::rng());
            let to = forward.destination.clone();
            session
                .connect(&mut client, &mut ahead, Way::Forward, principal, to, trace)
                .await
        }
        Err(refusal) => Err(NotDialled::Refused(refusal)),
    };
    match opened {
        Ok(stream) => {
            session.metrics.granted(Way::Forward);
            relay(client, ahead, stream, BytesMut::new()).await;
        }
        // Dropped, the connection is reset, which is all that can be said in a protocol that is not known.
        Err(NotDialled::Refused(refusal)) => session.refused(&refusal),
        Err(NotDialled::CallerGone) => {}
    }
}
