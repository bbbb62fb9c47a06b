//! Why a link was lost, from what the parts of the agent say of it.

use std::net::SocketAddr;

use tunnel_carrier::quic::DialError;
use tunnel_model::{LossCause, Reason, Refusal};

/// Why a dial failed. `has_route` says whether this machine knows a way to an address.
pub(crate) fn of_dial(error: &DialError, has_route: impl Fn(SocketAddr) -> bool) -> LossCause {
    let failures = match error {
        DialError::Resolve(_) => return LossCause::Dns,
        DialError::Connect(failures) => failures,
    };
    let refusal = error.to_refusal();
    match refusal.reason {
        Reason::TargetUnreachable if failures.iter().any(|&(address, _)| has_route(address)) => LossCause::Timeout,
        Reason::TargetUnreachable => LossCause::NoRoute,
        // Said in the handshake.
        Reason::Unauthenticated | Reason::UnsupportedVersion => LossCause::Tls,
        _ => of_greeting(&refusal),
    }
}

/// Why a gateway that was reached did not take us.
pub(crate) fn of_greeting(refusal: &Refusal) -> LossCause {
    match of_end(refusal) {
        LossCause::GatewayRestart | LossCause::Other => LossCause::Refused,
        cause => cause,
    }
}

/// Why a session lost its carrier.
pub(crate) fn of_end(refusal: &Refusal) -> LossCause {
    match refusal.reason {
        Reason::IdleTimeout => LossCause::Timeout,
        Reason::CarrierLost => LossCause::GatewayRestart,
        Reason::Draining => LossCause::GatewayLeft,
        Reason::Superseded => LossCause::Superseded,
        Reason::Revoked | Reason::Unauthenticated | Reason::Overloaded | Reason::UnsupportedVersion => {
            LossCause::Refused
        }
        _ => LossCause::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_fails_for_want_of_a_name_a_route_an_answer_or_a_certificate() {
        let name = "gw.example:443".parse().unwrap();
        let resolve = DialError::Resolve(vec![(name, "no such host".to_owned())]);
        assert_eq!(of_dial(&resolve, |_| true), LossCause::Dns);
        let connect = |reason| {
            let there = "192.0.2.1:443".parse().unwrap();
            DialError::Connect(vec![(there, Refusal::new(reason, ""))])
        };
        for (reason, routed, cause) in [
            (Reason::IdleTimeout, true, LossCause::Timeout),
            (Reason::IdleTimeout, false, LossCause::NoRoute),
            (Reason::CarrierLost, true, LossCause::Timeout),
            (Reason::Unauthenticated, true, LossCause::Tls),
            (Reason::UnsupportedVersion, true, LossCause::Tls),
            (Reason::Overloaded, true, LossCause::Refused),
        ] {
            assert_eq!(of_dial(&connect(reason), |_| routed), cause, "{reason}");
        }
    }

    #[test]
    fn the_end_of_a_session_tells_its_cause() {
        for (reason, cause) in [
            (Reason::IdleTimeout, LossCause::Timeout),
            (Reason::CarrierLost, LossCause::GatewayRestart),
            (Reason::Draining, LossCause::GatewayLeft),
            (Reason::Superseded, LossCause::Superseded),
            (Reason::Revoked, LossCause::Refused),
            (Reason::Internal, LossCause::Other),
        ] {
            assert_eq!(of_end(&Refusal::new(reason, "")), cause, "{reason}");
        }
        // A gateway that answers and does not want us has refused us, whatever it says.
        assert_eq!(of_greeting(&Refusal::new(Reason::Internal, "")), LossCause::Refused);
        assert_eq!(of_greeting(&Refusal::new(Reason::IdleTimeout, "")), LossCause::Timeout);
    }
}
