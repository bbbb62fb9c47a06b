//! Why connections end: reasons as QUIC's application error codes.

use quinn::{ConnectionError, TransportErrorCode, VarInt};
use tunnel_model::{Reason, Refusal};

use super::attachment::let_farewell_through;

/// Closes the connection and tells the peer why.
pub fn close(connection: &quinn::Connection, refusal: &Refusal) {
    let_farewell_through(connection);
    connection.close(code(refusal.reason), refusal.message.as_bytes());
}

pub(crate) fn code(reason: Reason) -> VarInt {
    VarInt::from_u32(reason as u32)
}

pub(crate) fn reason(code: VarInt) -> Reason {
    u32::try_from(code.into_inner()).map_or(Reason::Internal, Reason::from_wire)
}

/// Why the connection ended, in the words of whoever ended it.
pub fn refusal_of(error: &ConnectionError) -> Refusal {
    match error {
        ConnectionError::ApplicationClosed(closed) => {
            Refusal::new(reason(closed.error_code), String::from_utf8_lossy(&closed.reason))
        }
        ConnectionError::TimedOut => Refusal::new(Reason::IdleTimeout, "the peer fell silent"),
        ConnectionError::LocallyClosed => Refusal::new(Reason::Cancelled, "closed at this end"),
        ConnectionError::VersionMismatch => {
            Refusal::new(Reason::UnsupportedVersion, "the peer speaks no QUIC version 1")
        }
        ConnectionError::Reset => Refusal::new(Reason::CarrierLost, "the peer does not know this connection any more"),
        ConnectionError::ConnectionClosed(closed) => match Alert::of(closed.error_code) {
            Some(Alert::Certificate) => Refusal::new(Reason::Unauthenticated, "the peer refused our certificate"),
            Some(Alert::Protocol) => other_protocol(),
            None => Refusal::new(Reason::CarrierLost, closed.to_string()),
        },
        ConnectionError::TransportError(error) => match Alert::of(error.code) {
            Some(Alert::Certificate) => Refusal::new(
                Reason::Unauthenticated,
                format!("the peer is not who it should be: {}", error.reason),
            ),
            Some(Alert::Protocol) => other_protocol(),
            None => Refusal::new(Reason::Protocol, error.to_string()),
        },
        ConnectionError::CidsExhausted => Refusal::new(Reason::Overloaded, "no connection ids are left"),
    }
}

fn other_protocol() -> Refusal {
    Refusal::new(
        Reason::UnsupportedVersion,
        "what answers there does not speak this protocol; is it a tunnel gateway?",
    )
}

/// TLS alerts that say whose fault a failed handshake is.
enum Alert {
    /// One side did not believe the other's certificate, or missed one.
    Certificate,
    /// The sides share no application protocol or TLS version.
    Protocol,
}

impl Alert {
    /// Reads the alert out of QUIC's error code (RFC 9001 section 4.8); numbers are those of RFC 8446 section 6.
    fn of(code: TransportErrorCode) -> Option<Self> {
        match u64::from(code).checked_sub(0x100)? {
            42..=46 | 48 | 116 => Some(Self::Certificate),
            70 | 120 => Some(Self::Protocol),
            _ => None,
        }
    }
}
