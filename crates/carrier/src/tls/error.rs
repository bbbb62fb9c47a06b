//! Why connections end.

use std::io;

use rustls::{AlertDescription, CertificateError, Error as TlsError};
use tunnel_identity::tls::identity_error;
use tunnel_model::{Reason, Refusal};

/// A connection that ended without a farewell.
pub(super) fn cut() -> Refusal {
    Refusal::new(Reason::CarrierLost, "the connection ended without a farewell")
}

/// What an error of the socket, or of TLS on it, means.
pub(super) fn io_refusal(error: &io::Error) -> Refusal {
    if let Some(error) = tls_error(error) {
        return tls_refusal(error);
    }
    match error.kind() {
        // TCP's own patience has run out (tcp(7), TCP_USER_TIMEOUT).
        io::ErrorKind::TimedOut => silent(),
        io::ErrorKind::UnexpectedEof => cut(),
        _ => Refusal::new(Reason::CarrierLost, format!("the connection broke: {error}")),
    }
}

pub(super) fn silent() -> Refusal {
    Refusal::new(Reason::IdleTimeout, "the peer fell silent")
}

/// The error of TLS within one that came through a socket.
pub(super) fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref().and_then(|error| error.downcast_ref())
}

/// What an error of TLS means.
pub(super) fn tls_refusal(error: &TlsError) -> Refusal {
    match error {
        TlsError::AlertReceived(alert) if is_about_certificates(*alert) => {
            Refusal::new(Reason::Unauthenticated, "the peer refused our certificate")
        }
        TlsError::AlertReceived(AlertDescription::NoApplicationProtocol | AlertDescription::ProtocolVersion)
        | TlsError::NoApplicationProtocol
        | TlsError::PeerIncompatible(_) => other_protocol(),
        TlsError::InvalidCertificate(_) => match identity_error(error) {
            Some(why) => Refusal::new(
                Reason::Unauthenticated,
                format!("the peer is not who it should be: {why}"),
            ),
            None => Refusal::new(
                Reason::Unauthenticated,
                format!("the peer is not who it should be: {error}"),
            ),
        },
        _ => Refusal::new(Reason::Protocol, format!("TLS: {error}")),
    }
}

pub(super) fn other_protocol() -> Refusal {
    Refusal::new(
        Reason::UnsupportedVersion,
        "what answers there does not speak this protocol; is it a tunnel gateway?",
    )
}

/// RFC 8446 section 6.2
fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateRequired
    )
}

/// Whether the certificate was refused because it does not belong under the cluster's root, whoever showed it: what a
/// proxy that opens TLS does.
pub(super) fn is_strangers(error: &TlsError) -> bool {
    use tunnel_identity::IdentityError as Why;
    match error {
        TlsError::InvalidCertificate(CertificateError::Other(_)) => match identity_error(error) {
            Some(why) => !matches!(
                why,
                Why::Expired { .. } | Why::NotYetValid { .. } | Why::ExpiredTooLong { .. } | Why::Revoked
            ),
            None => true,
        },
        TlsError::InvalidCertificate(_) => true,
        _ => false,
    }
}
