//! What the handshake left behind: who the peer says it is, and a secret that both ends share.

use rustls_pki_types::CertificateDer;
use tunnel_identity::{ChannelBinding, EXPORTER_LABEL};
use tunnel_model::{Reason, Refusal};

/// The certificate chain that the peer showed, leaf first; empty if it showed none.
pub fn peer_chain(connection: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .map_or_else(Vec::new, |chain| *chain)
}

/// What binds an enrolment to this connection (RFC 8446 section 7.5; there, an empty context is as good as none).
pub fn channel_binding(connection: &quinn::Connection) -> Result<ChannelBinding, Refusal> {
    let mut exported = [0; 32];
    connection
        .export_keying_material(&mut exported, EXPORTER_LABEL, b"")
        .map_err(|_| Refusal::new(Reason::Internal, "the connection exports no key"))?;
    Ok(ChannelBinding::new(exported))
}
