//! SOCKS5: CONNECT by name or address, with a user name and secret (RFC 1928, RFC 1929).
//!
//! An address goes where the other side says, if anywhere. A name that is none of ours is refused and never resolved.

mod handshake;

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout_at},
};
use tunnel_model::{Principal, Reason, Refusal, TraceId};

use self::handshake::{Handshake, Step};
use super::{
    Dial, Way,
    client::{Client, READ},
    relay::relay,
    session::{NotDialled, Session},
};

pub(super) use handshake::VERSION;

/// Serves a connection whose first bytes are in `buf`; its request is due at `deadline`.
pub(super) async fn run<D: Dial>(session: Session<D>, mut client: Client, mut buf: BytesMut, deadline: Instant) {
    match timeout_at(deadline, agree(&session, &mut client, &mut buf)).await {
        Ok(Some((principal, host, port))) => connect(session, client, buf, principal, &host, port).await,
        Ok(None) => client.finish().await,
        Err(_) => session.refused(&Refusal::new(Reason::BadRequest, "the SOCKS5 handshake took too long")),
    }
}

/// The handshake up to the request; `None` if there is nothing more to say.
async fn agree<D: Dial>(
    session: &Session<D>,
    client: &mut Client,
    buf: &mut BytesMut,
) -> Option<(Principal, String, u16)> {
    let mut handshake = Handshake::default();
    let mut principal = None;
    let mut refused = None;
    loop {
        match handshake.handle_input(buf) {
            Ok(Step::Read) => {
                buf.reserve(READ);
                if client.read_buf(buf).await.ok()? == 0 {
                    return None;
                }
            }
            Ok(Step::Write(reply)) => client.write_all(reply).await.ok()?,
            Ok(Step::Authenticate(credential)) => {
                match session.authenticate(credential).await {
                    Ok(admitted) => principal = Some(admitted),
                    Err(refusal) => refused = Some(refusal),
                }
                handshake.handle_verdict(principal.is_some());
            }
            Ok(Step::Connect { host, port }) => return principal.map(|principal| (principal, host, port)),
            Err(error) => {
                let refusal = refused.unwrap_or_else(|| Refusal::new(Reason::BadRequest, error.to_string()));
                session.refused(&refusal);
                client.write_all(error.reply()).await.ok()?;
                return None;
            }
        }
    }
}

async fn connect<D: Dial>(
    session: Session<D>,
    mut client: Client,
    mut ahead: BytesMut,
    principal: Principal,
    host: &str,
    port: u16,
) {
    let dialled = match session.destination(&principal, host, port) {
        Ok(destination) => {
            let trace = TraceId::random(&mut rand::rng());
            let request = session.request(Way::Socks5, principal, destination, None, trace);
            session.connect(&mut client, &mut ahead, request).await
        }
        Err(refusal) => Err(NotDialled::Refused(refusal)),
    };
    match dialled {
        Ok(stream) => {
            session.metrics.granted(Way::Socks5);
            relay(client, ahead, stream, BytesMut::from(handshake::GRANTED)).await;
        }
        Err(NotDialled::Refused(refusal)) => {
            session.refused(&refusal);
            if client.write_all(handshake::refusal(refusal.reason)).await.is_ok() {
                client.finish().await;
            }
        }
        // Dropped, the connection is reset.
        Err(NotDialled::CallerGone) => {}
    }
}
