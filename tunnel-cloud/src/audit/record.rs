//! What is recorded. Names of members never change their meaning; new ones may come.

use std::net::SocketAddr;

use serde::Serialize;
use serde_json::{Map, Value};
use tunnel_daemon::error::CliError;
use tunnel_ingress::DialRequest;
use tunnel_model::{NodeId, NodeName, Refusal, TokenId};

use super::chain::RecordHash;
use crate::reload::Reloaded;

/// Something that is recorded. The variant's name stands in the member `event`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The gateway runs.
    GatewayStarted {
        /// Its version.
        version: &'static str,
    },
    /// The gateway has stopped in order. Where this is missing before the next start, it was killed or lost its power.
    GatewayStopped {},
    /// A stream is about to be opened.
    DialGranted(Dial),
    /// A stream has ended.
    DialEnded(Ended),
    /// A stream was refused before it was opened.
    DialRefused {
        /// What was asked for.
        #[serde(flatten)]
        dial: Dial,
        /// Why not.
        #[serde(flatten)]
        why: Why,
    },
    /// A credential was shown and not accepted.
    AuthenticationRefused {
        /// Where it came from.
        client: SocketAddr,
        /// Why not.
        #[serde(flatten)]
        why: Why,
    },
    /// An edge became a node.
    JoinGranted {
        /// The public half of the token.
        token: TokenId,
        /// The node.
        #[serde(flatten)]
        node: Node,
        /// Its first certificate.
        serial: String,
    },
    /// An edge did not become a node.
    JoinRefused {
        /// The public half of the token that it showed.
        token: TokenId,
        /// Where it came from.
        client: SocketAddr,
        /// Why not.
        #[serde(flatten)]
        why: Why,
    },
    /// A node has its next certificate.
    RenewalGranted {
        /// The node.
        #[serde(flatten)]
        node: Node,
        /// Its new certificate.
        serial: String,
        /// Whether the one it showed had expired.
        expired: bool,
    },
    /// A node has not got its next certificate.
    RenewalRefused {
        /// Where it came from.
        client: SocketAddr,
        /// Why not.
        #[serde(flatten)]
        why: Why,
    },
    /// A certificate was shown and not accepted.
    SessionRefused {
        /// Where it came from.
        client: SocketAddr,
        /// Why not.
        #[serde(flatten)]
        why: Why,
    },
    /// The live session of a node was cut because the node was revoked or removed.
    SessionRevoked(Node),
    /// Somebody with access to the admin socket, or to the state, did something.
    Admin(Act),
    /// The end of the log was damaged, and put aside.
    Recovered {
        /// The file, beside the log, to which it was moved.
        moved_to: String,
        /// How much that was.
        bytes: u64,
        /// Its hash.
        sha256: RecordHash,
    },
    /// The log can be written again.
    Resumed {
        /// How many records could be neither written nor kept.
        lost: u64,
    },
    /// There were more refusals than are recorded one by one.
    Suppressed(Suppressed),
}

impl Event {
    /// Whether somebody was refused something.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::DialRefused { .. }
            | Self::AuthenticationRefused { .. }
            | Self::JoinRefused { .. }
            | Self::RenewalRefused { .. }
            | Self::SessionRefused { .. }
            | Self::Suppressed(_) => true,
            Self::Admin(act) => act.result != "ok",
            _ => false,
        }
    }
}

/// A stream that somebody asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Dial {
    /// The stream's number in this run of the gateway; none where it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Who, as a rule would name it: `user:alice`.
    pub principal: String,
    /// The node.
    pub node: String,
    /// What on it.
    pub target: String,
    /// How urgent.
    pub class: &'static str,
    /// By which way in.
    pub way: &'static str,
    /// Where the caller connected from.
    pub client: SocketAddr,
    /// The caller's trace (W3C Trace Context).
    pub trace: String,
}

impl Dial {
    /// What a request asks for; `id` is the stream's number if it is granted.
    pub fn new(request: &DialRequest, id: Option<u64>) -> Self {
        Self {
            id,
            principal: request.principal.to_string(),
            node: request.destination.node.to_string(),
            target: request.destination.target.to_string(),
            class: request.class.as_str(),
            way: request.way.as_str(),
            client: request.client,
            trace: request.trace.to_string(),
        }
    }
}

/// How a stream ended.
#[derive(Debug, Clone, Serialize)]
pub struct Ended {
    /// The number under which it was granted.
    pub id: u64,
    /// Who had it.
    pub principal: String,
    /// The node.
    pub node: String,
    /// What on it.
    pub target: String,
    /// `ok` where both directions came to their end, else why not.
    pub reason: &'static str,
    /// Bytes that were taken for the target.
    pub bytes_to_target: u64,
    /// Bytes that came from the target.
    pub bytes_to_caller: u64,
    /// From the grant, in milliseconds.
    pub duration_ms: u64,
    /// The caller's trace.
    pub trace: String,
}

/// A node, and where it connected from.
#[derive(Debug, Clone, Serialize)]
pub struct Node {
    /// Its name.
    pub node: NodeName,
    /// Who it is, whatever it is called.
    pub node_id: NodeId,
    /// Where it connected from.
    pub client: SocketAddr,
}

/// Why something was refused.
#[derive(Debug, Clone, Serialize)]
pub struct Why {
    /// The stable code.
    pub reason: &'static str,
    /// The sentence beside it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl From<&Refusal> for Why {
    fn from(refusal: &Refusal) -> Self {
        Self {
            reason: refusal.reason.as_str(),
            detail: refusal.message.clone(),
        }
    }
}

/// Something that an administrator did.
#[derive(Debug, Clone, Serialize)]
pub struct Act {
    /// What, such as `token-create`.
    pub act: String,
    /// To whom or what: a name or an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The user at the other end of the admin socket, or the one that ran the command where no gateway runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// That process, where the kernel tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// `ok`, or the error's code.
    pub result: String,
    /// What else was said that is no secret.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub detail: Map<String, Value>,
}

impl Act {
    /// The configuration was read again because of a signal, which does not say who sent it.
    pub fn reload_by_signal(done: &Result<Reloaded, CliError>) -> Self {
        let mut detail = Map::from_iter([("signal".to_owned(), "SIGHUP".into())]);
        if let Ok(Reloaded { applied, needs_restart }) = done {
            detail.insert("applied".to_owned(), applied.clone().into());
            detail.insert("needs_restart".to_owned(), needs_restart.clone().into());
        }
        Self {
            act: "reload".to_owned(),
            object: None,
            uid: None,
            pid: None,
            result: done.as_ref().map_or_else(CliError::code, |_| "ok").to_owned(),
            detail,
        }
    }
}

/// Refusals that were counted instead of recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Suppressed {
    /// Dials.
    pub dials: u64,
    /// Joins, renewals and sessions.
    pub nodes: u64,
    /// Credentials.
    pub authentications: u64,
}

impl Suppressed {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.dials + self.nodes + self.authentications
    }
}
