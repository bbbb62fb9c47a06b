//! What a port speaks, and so how its callers say where they want to go.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Way, forward::Forward};

/// A kind of port.
#[derive(Debug, Clone)]
pub enum Door {
    /// HTTP CONNECT, plain HTTP proxying and SOCKS5, told apart by their first byte.
    Proxy,
    /// HTTP whose `Host` decides.
    Http,
    /// TLS whose server name decides; it goes on untouched, to this port.
    Sni {
        /// The port that callers mean: a server name has none, so it is the one they connected to.
        port: u16,
    },
    /// Whatever is spoken here goes to one target.
    Forward(Arc<Forward>),
}

impl Door {
    /// The way of a plain HTTP request that comes in here.
    pub(crate) fn way_of_requests(&self) -> Way {
        match self {
            Self::Http => Way::Host,
            Self::Proxy | Self::Sni { .. } | Self::Forward(_) => Way::Plain,
        }
    }

    /// Whether callers are told in words why they are refused; otherwise only the log knows.
    pub(crate) fn explains(&self) -> bool {
        matches!(self, Self::Proxy | Self::Http)
    }

    /// Cancelled when the door is closed for good, while the process goes on.
    pub(crate) fn closed(&self) -> CancellationToken {
        match self {
            Self::Forward(forward) => forward.closed.clone(),
            Self::Proxy | Self::Http | Self::Sni { .. } => CancellationToken::new(),
        }
    }
}
