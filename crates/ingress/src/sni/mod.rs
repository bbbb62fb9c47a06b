//! TLS passed on untouched, to the node that its server name says (RFC 6066 section 3).
//!
//! Nothing is decrypted: the caller and the target check each other's certificates as if nothing were between them. With
//! Encrypted Client Hello, the name outside decides; the one inside is the target's business.

mod hello;

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout_at},
};
use tunnel_model::{Destination, Fault, Host, Principal, Reason, Refusal, TraceId};

use self::hello::{HelloError, HelloScan};
use super::{
    Dial, Dialled, Way,
    client::{Client, READ},
    relay::relay,
    session::{NotDialled, Session, unless_gone},
};

/// Alerts (RFC 8446 section 6, RFC 6066 section 3).
const UNRECOGNIZED_NAME: u8 = 112;
const ACCESS_DENIED: u8 = 49;
const INTERNAL_ERROR: u8 = 80;

/// Serves a connection whose first bytes are in `buf`; its ClientHello is due at `deadline`.
pub(super) async fn run<D: Dial>(
    session: Session<D>,
    mut client: Client,
    mut buf: BytesMut,
    port: u16,
    deadline: Instant,
) {
    let read = timeout_at(deadline, read_name(&mut client, &mut buf)).await;
    let name = match read.unwrap_or(Err(HelloError::TooSlow)) {
        Ok(name) => name,
        Err(error) => {
            session.refused(&Refusal::new(Reason::BadRequest, error.to_string()));
            return alert(client, error.alert()).await;
        }
    };
    match open(&session, &mut client, buf, &name, port).await {
        Ok((stream, ahead)) => {
            session.metrics.granted(Way::Sni);
            relay(client, ahead, stream, BytesMut::new()).await;
        }
        Err(NotDialled::Refused(refusal)) => {
            session.refused(&refusal);
            alert(client, alert_of(refusal.reason)).await;
        }
        // Dropped, the connection is reset.
        Err(NotDialled::CallerGone) => {}
    }
}

async fn read_name(client: &mut Client, buf: &mut BytesMut) -> Result<String, HelloError> {
    let mut scan = HelloScan::default();
    loop {
        if let Some(name) = scan.find(buf)? {
            return Ok(name);
        }
        buf.reserve(READ);
        match client.read_buf(buf).await {
            Ok(0) | Err(_) => return Err(HelloError::Truncated),
            Ok(_) => {}
        }
    }
}

/// Opens a stream, sends on what has come so far with it, and waits for the target. Returns what came meanwhile, too.
async fn open<D: Dial>(
    session: &Session<D>,
    client: &mut Client,
    mut buf: BytesMut,
    name: &str,
    port: u16,
) -> Result<(D::Stream, BytesMut), NotDialled> {
    let (principal, destination) = admit(session, name, port).await.map_err(NotDialled::Refused)?;
    let trace = TraceId::random(&mut rand::rng());
    let request = session.request(Way::Sni, principal, destination, None, trace);
    let mut stream = session.dial(client, &mut buf, request).await?;
    let mut ahead = BytesMut::new();
    let established = async {
        // Where that fails, the stream knows why.
        if stream.write_all(&buf).await.is_ok() {
            let _ = stream.flush().await;
        }
        stream.established().await
    };
    unless_gone(client, &mut ahead, established).await?;
    Ok((stream, ahead))
}

/// Who asks, and for what; the second is not looked at before the first is known.
async fn admit<D: Dial>(session: &Session<D>, name: &str, port: u16) -> Result<(Principal, Destination), Refusal> {
    let principal = session.behind.authenticate(None, session.peer).await?;
    // An address is no server name (RFC 6066 section 3), whatever routes there are.
    if matches!(Host::new(name, port, session.behind.zone()), Ok(Host::Address { .. })) {
        let message = format!("the server name {name} is an address; write ADDRESS.via.NODE");
        return Err(Refusal::new(Reason::BadRequest, message));
    }
    let denied_is_unknown = |refusal: Refusal| match refusal.reason {
        Reason::Denied => Refusal::new(Reason::UnknownNode, refusal.message),
        _ => refusal,
    };
    let destination = session.destination(&principal, name, port).map_err(denied_is_unknown)?;
    Ok((principal, destination))
}

fn alert_of(reason: Reason) -> u8 {
    match reason {
        Reason::Denied | Reason::NotAllowed | Reason::Unauthenticated => ACCESS_DENIED,
        _ if reason.fault() == Fault::Caller => UNRECOGNIZED_NAME,
        _ => INTERNAL_ERROR,
    }
}

/// Ends a connection with a fatal alert (RFC 8446 section 6.2).
async fn alert(mut client: Client, description: u8) {
    if client.write_all(&[21, 3, 3, 0, 2, 2, description]).await.is_ok() {
        client.finish().await;
    }
}
