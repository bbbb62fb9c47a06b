//! A session for one round trip: whether the tunnel works, as nothing else can tell.

use std::{pin::pin, time::Duration};

use tokio::time::timeout;
use tunnel_carrier::{Carrier, Dialer, Patience, Tunnel};
use tunnel_identity::{UnixTime, tls::Alpn};
use tunnel_model::{GatewayAddr, Reason, Refusal, SessionId};
use tunnel_proto::Side;

use crate::{
    agent::{hello, session_config},
    identity::Identity,
};

/// How long the answer may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// What came back.
#[derive(Debug)]
pub(crate) struct Echo {
    /// What the gateway calls this node.
    pub(crate) name: String,
    /// From ping to pong.
    pub(crate) rtt: Duration,
}

/// Opens a session, pings through it and closes it. Takes the place of a session of this node that runs.
pub(crate) async fn echo(identity: &Identity, dialer: &Dialer, gateways: &[GatewayAddr]) -> Result<Echo, Refusal> {
    let connection = dialer
        .dial(gateways, &identity.tls(Alpn::Tunnel)?, Patience::default())
        .await?;
    let config = session_config();
    let hello = hello(SessionId::random(&mut rand::rng()), 1);
    let carrier = Carrier::dial(connection.clone(), hello, config.patience).await?;
    let gateway = carrier.negotiated.peer.clone();
    identity
        .learn(&connection, UnixTime::from_secs(gateway.unix_millis / 1000))
        .await;
    // Dropped after the session is closed: before, the gateway would see its control stream end without a reason.
    let opened = Tunnel::new(Side::Edge, config);
    let mut driver = pin!(opened.tunnel.attach(carrier)?.run());
    let answer = tokio::select! {
        why = &mut driver => Err(why),
        answer = timeout(DEADLINE, opened.tunnel.ping()) => answer.unwrap_or_else(|_| Err(silent())),
    };
    opened.tunnel.close(&Refusal::new(Reason::Cancelled, "done"));
    answer.map(|rtt| Echo {
        name: gateway.name,
        rtt,
    })
}

fn silent() -> Refusal {
    Refusal::new(
        Reason::IdleTimeout,
        "the gateway opened a session and does not answer in it",
    )
}
