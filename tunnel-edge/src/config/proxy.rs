//! The proxy for local clients: `[proxy]`.

use std::net::{Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tunnel_daemon::config::{ConfigError, Source};
use tunnel_model::{DenyList, Zone};

/// The port that proxies of this kind commonly have.
const PORT: u16 = 3128;

/// The `[proxy]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyConfig {
    /// Where local clients connect; whoever reaches it may use it
    pub listen: SocketAddr,
    /// What they may not ask for, whatever the gateway would grant, such as "*.edge2" or "*:25"
    pub deny: DenyList,
    /// The suffix of names at the gateway, which clients may write or leave out
    pub zone: Zone,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
            deny: DenyList::default(),
            zone: Zone::default(),
        }
    }
}

impl ProxyConfig {
    /// Refuses an address that something else listens on.
    pub(super) fn check(
        &self,
        source: &Source,
        taken: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<(), ConfigError> {
        let listen = self.listen;
        if listen.port() != 0 && taken.into_iter().any(|other| other == listen) {
            return Err(source.invalid("proxy.listen", format!("{listen} is taken by another listener")));
        }
        Ok(())
    }
}
