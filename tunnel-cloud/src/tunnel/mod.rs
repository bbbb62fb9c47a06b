//! The edges' way in: QUIC connections, enrolment, live sessions.
//!
//! | module | what |
//! |---|---|
//! | `listener` | accepts connections and sends each where its purpose says |
//! | `enrol` | join tokens and old certificates become new certificates |
//! | `session` | the life of one node's session, from its certificate to its end |
//! | `outbound` | streams that edges open |
//! | [`registry`] | who is connected: one session for each node, the newest |

mod enrol;
mod listener;
mod metrics;
mod outbound;
pub mod registry;
mod session;

use std::{sync::Arc, time::SystemTime};

use rustls_pki_types::CertificateDer;
use tunnel_carrier::{
    Connection,
    quic::{self, Purpose},
    tls,
};
use tunnel_daemon::{memory::MemoryGuard, shutdown::Tasks};
use tunnel_identity::{Authority, ClusterRoot, UnixTime};

pub use listener::{Doors, serve};
pub use metrics::TunnelMetrics;
pub use registry::Registry;
pub(crate) use session::revoked;

use crate::{audit::Audit, config::RawLimits, dial::Gateway, directory::LiveDirectory, store::Store};

/// A connection of an edge whose handshake is through, of either kind. Who it is, is still to be found out.
struct Arrived {
    connection: Connection,
    purpose: Purpose,
    chain: Vec<CertificateDer<'static>>,
}

impl From<quic::Accepted> for Arrived {
    fn from(accepted: quic::Accepted) -> Self {
        Self {
            connection: accepted.connection.into(),
            purpose: accepted.purpose,
            chain: accepted.chain,
        }
    }
}

impl From<tls::Accepted> for Arrived {
    fn from(accepted: tls::Accepted) -> Self {
        Self {
            connection: accepted.connection.into(),
            purpose: accepted.purpose,
            chain: accepted.chain,
        }
    }
}

/// What the edges' side of a gateway works with.
pub struct Context {
    /// What is kept.
    pub store: Arc<dyn Store>,
    /// Who there is.
    pub directory: Arc<LiveDirectory>,
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// What signs node certificates.
    pub authority: Arc<Authority>,
    /// How many nodes, and how many streams of each.
    pub limits: RawLimits,
    /// Whether there is memory for more of them.
    pub memory: MemoryGuard,
    /// What is written down of them.
    pub audit: Arc<Audit>,
    /// The way of every dial, for streams that edges open.
    pub gateway: Arc<Gateway>,
    /// Where those streams run.
    pub tasks: Tasks,
}

impl Context {
    fn root(&self) -> &ClusterRoot {
        self.authority.root()
    }
}

fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // A gateway whose clock stands before 1970 issues certificates that nobody takes, which is right.
    UnixTime::from_secs(since.map_or(0, |d| d.as_secs()))
}
