//! What an agent is doing, for those who watch it.

use std::{net::SocketAddr, time::Duration};

use tracing::{debug, info, warn};
use tunnel_carrier::Tunnel;
use tunnel_identity::UnixTime;
use tunnel_model::{Reason, Refusal};

/// Where the agent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It is dialling the gateway.
    Connecting,
    /// The gateway has answered through the tunnel.
    Connected,
    /// It will dial again after a while.
    Waiting,
    /// It has stopped.
    Stopped,
}

/// The state of an agent.
#[derive(Debug, Clone)]
pub struct State {
    /// Where it stands.
    pub phase: Phase,
    /// Since when, by the corrected clock.
    pub since: UnixTime,
    /// Since when there is no session; none while connected.
    pub away_since: Option<UnixTime>,
    /// The node's name, as the gateway told it last.
    pub name: Option<String>,
    /// The gateway's address that is in use, or was last.
    pub gateway: Option<SocketAddr>,
    /// What ended the last session or attempt; none while connected.
    pub why: Option<Refusal>,
    /// While waiting: for how long from [`Self::since`] on.
    pub retry_in: Option<Duration>,
    /// While connected: the settings that the session goes by.
    pub generation: u64,
    /// While connected: the session.
    pub(crate) tunnel: Option<Tunnel>,
}

impl State {
    pub(super) fn new(now: UnixTime) -> Self {
        Self {
            phase: Phase::Connecting,
            since: now,
            away_since: Some(now),
            name: None,
            gateway: None,
            why: None,
            retry_in: None,
            generation: 0,
            tunnel: None,
        }
    }

    /// What to call this machine in a message for somebody at the gateway.
    pub fn node_name(&self) -> &str {
        self.name.as_deref().unwrap_or("this edge")
    }

    pub(super) fn connecting(&mut self, now: UnixTime) {
        debug!("connecting");
        self.enter(Phase::Connecting, now);
    }

    pub(super) fn connected(&mut self, tunnel: Tunnel, generation: u64, rtt: Duration, now: UnixTime) {
        self.enter(Phase::Connected, now);
        self.generation = generation;
        self.why = None;
        self.gateway = tunnel.status().map(|status| status.remote).or(self.gateway);
        let gateway = self.gateway.map(tracing::field::display);
        info!(gateway, name = self.node_name(), rtt_ms = rtt.as_millis(), "connected");
        self.tunnel = Some(tunnel);
    }

    /// One line for each change: attempts that fail for the same reason again are no change.
    pub(super) fn waiting(&mut self, why: Refusal, retry_in: Duration, now: UnixTime) {
        let before = self.why.as_ref().map(|refusal| refusal.reason);
        let retry_s = retry_in.as_secs_f32();
        if before == Some(why.reason) {
            debug!(reason = %why.reason, error = %why.message, retry_s, "still not connected");
        } else {
            warn!(reason = %why.reason, error = %why.message, retry_s, hint = hint(why.reason), "not connected");
        }
        self.enter(Phase::Waiting, now);
        self.why = Some(why);
        self.retry_in = Some(retry_in);
    }

    pub(super) fn stopped(&mut self, now: UnixTime) {
        info!("disconnected");
        self.enter(Phase::Stopped, now);
    }

    fn enter(&mut self, phase: Phase, now: UnixTime) {
        self.phase = phase;
        self.since = now;
        self.away_since = match phase {
            Phase::Connected => None,
            Phase::Connecting | Phase::Waiting | Phase::Stopped => self.away_since.or(Some(now)),
        };
        self.retry_in = None;
        self.tunnel = None;
    }
}

/// What somebody who reads the log can do about it.
fn hint(reason: Reason) -> &'static str {
    match reason {
        Reason::Revoked => "the gateway's operator revoked this node; to come back it must join anew",
        Reason::Superseded => "another machine uses this node's identity; stop one of them, or join anew",
        Reason::Unauthenticated => "the certificate is being renewed; if that does not help, join anew",
        Reason::UnsupportedVersion => "upgrade tunnel-edge or the gateway",
        Reason::TargetUnreachable => "run `tunnel-edge check` to see how far it gets",
        _ => "it tries again by itself",
    }
}
