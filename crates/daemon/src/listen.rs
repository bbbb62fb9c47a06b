//! Where a listener that asks for no credential may listen: on this machine only.

use std::net::SocketAddr;

use crate::error::{CliError, Exit};

/// A listener without credentials was given an address that other machines reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} can be reached from other machines, and this listener asks for no credential")]
pub struct NotLocal(
    /// The address that was refused.
    pub SocketAddr,
);

/// Lets an address pass only if it is a loopback address; a Unix socket is always local.
///
/// An IPv4-mapped IPv6 address counts as the IPv4 address it holds. The unspecified address is not local: it means
/// every interface.
pub fn require_local(addr: SocketAddr) -> Result<SocketAddr, NotLocal> {
    if addr.ip().to_canonical().is_loopback() {
        Ok(addr)
    } else {
        Err(NotLocal(addr))
    }
}

impl From<NotLocal> for CliError {
    fn from(error: NotLocal) -> Self {
        Self::new(Exit::Failure, "listen-not-local", error.to_string())
            .with_hint("use a loopback address such as 127.0.0.1, and let a proxy with access control face the network")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_passes_in_every_spelling() {
        for addr in ["127.0.0.1:9", "127.8.8.8:9", "[::1]:9", "[::ffff:127.0.0.1]:9"] {
            let addr = addr.parse().unwrap();
            assert_eq!(require_local(addr), Ok(addr));
        }
    }

    #[test]
    fn an_address_that_others_reach_is_refused_by_name() {
        for addr in [
            "0.0.0.0:9",
            "[::]:9",
            "10.0.0.1:9",
            "[::ffff:10.0.0.1]:9",
            "[fe80::1]:9",
            "192.0.2.1:9",
        ] {
            let addr: SocketAddr = addr.parse().unwrap();
            let error = CliError::from(require_local(addr).unwrap_err());
            assert_eq!(error.code(), "listen-not-local");
            assert!(error.message().contains(&addr.to_string()));
        }
    }
}
