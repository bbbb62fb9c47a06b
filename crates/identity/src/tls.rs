//! TLS as the tunnel speaks it: version 1.3 only, ring, no 0-RTT, no resumption.
//!
//! Without resumption every handshake shows certificates, so identity and revocation are judged at each connection.
//!
//! The handshake itself proves possession of a key and a path of signatures to the cluster's root for the right role. Time
//! is judged afterwards: by [`NodeIdentity::from_chain`](crate::NodeIdentity::from_chain) on the gateway, which can then
//! let an expired certificate renew itself, and by the [`TimeFloor`] on the edge, which cannot know the time yet.
//!
//! What the gateway must do with each connection:
//! 1. refuse one that negotiated neither [`ALPN_TUNNEL`] nor [`ALPN_ENROL`] (over TCP a client may offer none);
//! 2. for [`ALPN_TUNNEL`], read the identity with [`Expiry::Full`](crate::Expiry::Full) and close if there is none;
//! 3. for [`ALPN_ENROL`], do so for a renewal, with [`Expiry::Within`](crate::Expiry::Within).

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig,
    SignatureScheme,
    client::{
        Resumption, WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring::default_provider, verify_tls13_signature},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    ClusterRoot, Credential, GatewayIdentity, IdentityError, RootPin, TimeFloor, UserIdentity,
    chain::{self, ALGORITHMS, Wanted},
};

/// The application protocol of a node's session.
pub const ALPN_TUNNEL: &[u8] = b"tunnel/1";

/// The application protocol of enrolment and renewal.
pub const ALPN_ENROL: &[u8] = b"tunnel-enrol/1";

/// What to give a TLS or QUIC library that asks for a server name. It is neither sent nor checked: addresses change, the
/// gateway's name in its certificate does not.
pub const SERVER_NAME: &str = "gateway.invalid";

/// What a node connects for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// Its session: [`ALPN_TUNNEL`].
    Tunnel,
    /// Its next certificate: [`ALPN_ENROL`].
    Enrol,
}

impl Alpn {
    /// The protocol's name on the wire.
    pub const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Tunnel => ALPN_TUNNEL,
            Self::Enrol => ALPN_ENROL,
        }
    }
}

/// The gateway's side, for both protocols. Client certificates are asked for and may be missing; one that is shown must
/// lead to the root as a node's, and may have expired.
pub fn server_config(gateway: &Credential, root: &ClusterRoot) -> Result<ServerConfig, rustls::Error> {
    let verifier = ClientVerifier {
        root: root.clone(),
        clients: Clients::Nodes,
        hints: Vec::new(),
    };
    let (chain, key) = gateway.for_rustls();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN_TUNNEL.to_vec(), ALPN_ENROL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The application protocol of callers whose proxy connection is TLS (RFC 9112); most offer none.
pub const ALPN_PROXY: &[u8] = b"http/1.1";

/// The gateway's side towards callers that speak TLS to the proxy port. Client certificates are asked for and may be
/// missing; one that is shown must lead to the root as a user's and be valid now, or the handshake fails. Whose it is
/// [`UserIdentity::from_chain`] says.
pub fn server_config_proxy(gateway: &Credential, root: &ClusterRoot) -> Result<ServerConfig, rustls::Error> {
    // Callers may hold certificates of other authorities for other servers. Those that heed the hint do not show them.
    let hints = vec![DistinguishedName::in_sequence(root.anchor().subject.as_ref())];
    let verifier = ClientVerifier {
        root: root.clone(),
        clients: Clients::Users,
        hints,
    };
    let (chain, key) = gateway.for_rustls();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN_PROXY.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The side of an edge that holds a join token: trusts whoever the root with the pinned key made its gateway.
///
/// After the handshake [`GatewayIdentity::from_pinned_chain`] gives the root, to be kept.
pub fn client_config_enrol(pin: RootPin, floor: &TimeFloor) -> Result<ClientConfig, rustls::Error> {
    let verifier = GatewayVerifier {
        trust: Trust::Pin(pin),
        floor: floor.clone(),
    };
    let config = client_builder(verifier)?.with_no_client_auth();
    Ok(finish(config, Alpn::Enrol))
}

/// The side of an enrolled edge: trusts the gateway of its own cluster, at whatever address, and shows its certificate.
pub fn client_config_node(
    root: &ClusterRoot,
    node: &Credential,
    floor: &TimeFloor,
    alpn: Alpn,
) -> Result<ClientConfig, rustls::Error> {
    let verifier = GatewayVerifier {
        trust: Trust::Root(Box::new(root.clone())),
        floor: floor.clone(),
    };
    let (chain, key) = node.for_rustls();
    let config = client_builder(verifier)?.with_client_auth_cert(chain, key)?;
    Ok(finish(config, alpn))
}

/// Why the peer's certificate was refused, if that is what the error says and it was found on this side.
pub fn identity_error(error: &rustls::Error) -> Option<IdentityError> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.downcast_ref().copied(),
        _ => None,
    }
}

fn client_builder(verifier: GatewayVerifier) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

fn finish(mut config: ClientConfig, alpn: Alpn) -> ClientConfig {
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        signature_verification_algorithms: SIGNATURES,
        ..default_provider()
    })
}

/// Handshake signatures by the keys that certificates may have.
static SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: ALGORITHMS,
    mapping: &[
        (
            SignatureScheme::ECDSA_NISTP256_SHA256,
            &[webpki::ring::ECDSA_P256_SHA256],
        ),
        (SignatureScheme::ED25519, &[webpki::ring::ED25519]),
    ],
};

fn refuse(error: IdentityError) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

fn chain_of(leaf: &CertificateDer<'_>, issuers: &[CertificateDer<'_>]) -> Vec<CertificateDer<'static>> {
    let all = std::iter::once(leaf).chain(issuers);
    all.map(|cert| cert.clone().into_owned()).collect()
}

/// All verifiers see TLS 1.3 alone.
fn no_tls12<T>() -> Result<T, rustls::Error> {
    Err(rustls::PeerIncompatible::Tls13RequiredForQuic.into())
}

/// Whose certificates a port takes.
#[derive(Debug)]
enum Clients {
    Nodes,
    Users,
}

#[derive(Debug)]
struct ClientVerifier {
    root: ClusterRoot,
    clients: Clients,
    hints: Vec<DistinguishedName>,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain = chain_of(end_entity, intermediates);
        let checked = match self.clients {
            // Whether it is in date is for the session to judge: an expired one may still renew itself.
            Clients::Nodes => chain::check(&chain, &self.root, Wanted::Node).map(drop),
            Clients::Users => {
                let now = crate::UnixTime::from_secs(now.as_secs());
                UserIdentity::from_chain(&chain, &self.root, now).map(drop)
            }
        };
        checked.map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}

#[derive(Debug)]
enum Trust {
    Pin(RootPin),
    Root(Box<ClusterRoot>),
}

#[derive(Debug)]
struct GatewayVerifier {
    trust: Trust,
    floor: TimeFloor,
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = chain_of(end_entity, intermediates);
        let checked = match &self.trust {
            Trust::Pin(pin) => GatewayIdentity::from_pinned_chain(&chain, pin, &self.floor).map(drop),
            Trust::Root(root) => GatewayIdentity::from_chain(&chain, root, &self.floor).map(drop),
        };
        checked.map_err(refuse)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
