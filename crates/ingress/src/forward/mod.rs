//! Ports that always lead to the same target, whatever protocol is spoken there.
//!
//! Callers show nothing here: they count as their address does, or as the user on whose behalf the forward was
//! configured. One that is refused is reset, and the log says why.

mod ahead;
pub(super) mod tcp;
pub mod udp;

use std::net::SocketAddr;

use tokio_util::sync::CancellationToken;
use tunnel_model::{Class, Destination, Principal, Refusal, UserName};

pub use self::ahead::open;
use super::Dial;

/// Where a port leads, and on whose behalf.
#[derive(Debug, Clone)]
pub struct Forward {
    /// The far end.
    pub destination: Destination,
    /// Who asks.
    pub asker: Asker,
    /// How urgent its streams are, where that was configured.
    pub class: Option<Class>,
    /// Cancelled when the forward is taken back, which also cuts what runs through it.
    pub closed: CancellationToken,
}

impl Forward {
    /// Who asks, when this client connects.
    async fn principal<D: Dial>(&self, behind: &D, client: SocketAddr) -> Result<Principal, Refusal> {
        match &self.asker {
            Asker::Caller => behind.authenticate(None, client).await,
            Asker::User(name) => Ok(behind.user(name)?.at(client.ip())),
            Asker::Known(principal) => Ok(principal.clone().at(client.ip())),
        }
    }
}

/// Who asks for the streams of a forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// Whoever connects, known by the address alone.
    Caller,
    /// The user of this name, as far as there is one.
    User(UserName),
    /// Somebody who is known already.
    Known(Principal),
}
