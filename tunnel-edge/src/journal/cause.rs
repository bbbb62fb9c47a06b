//! Why a link was lost, from what the parts of the agent say of it.

use std::net::SocketAddr;

use tunnel_carrier::{
    CarrierKind, DialError, quic,
    tls::{self, Failure},
};
use tunnel_model::{LossCause, Reason, Refusal};

/// Why a dial failed. `has_route` says whether this machine knows a way to an address.
pub(crate) fn of_dial(error: &DialError, has_route: impl Fn(SocketAddr) -> bool) -> LossCause {
    match error {
        DialError::Refused(quic) => of_quic(quic, has_route),
        DialError::Neither { quic, tls } => of_tls(tls).unwrap_or_else(|| of_quic(quic, has_route)),
    }
}

/// What stood in the way of TLS, as far as that says more than the silence of UDP.
fn of_tls(error: &tls::DialError) -> Option<LossCause> {
    error.failures().find_map(|failure| match failure {
        Failure::Proxy(_) => Some(LossCause::Proxy),
        Failure::Inspected | Failure::Portal | Failure::NotTls => Some(LossCause::Tls),
        Failure::Refused(refusal) => match refusal.reason {
            Reason::Unauthenticated | Reason::UnsupportedVersion => Some(LossCause::Tls),
            Reason::CarrierLost | Reason::IdleTimeout => None,
            _ => Some(of_greeting(refusal)),
        },
        Failure::Unreachable(_) | Failure::Silent => None,
    })
}

fn of_quic(error: &quic::DialError, has_route: impl Fn(SocketAddr) -> bool) -> LossCause {
    let failures = match error {
        quic::DialError::Resolve(_) => return LossCause::Dns,
        quic::DialError::Connect(failures) => failures,
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
    match of_end(refusal, CarrierKind::Quic) {
        LossCause::GatewayRestart | LossCause::Other => LossCause::Refused,
        cause => cause,
    }
}

/// Why a session lost its carrier.
pub(crate) fn of_end(refusal: &Refusal, kind: CarrierKind) -> LossCause {
    match refusal.reason {
        // Anybody on the way can end a connection of TCP; what the attempts to come back show says more.
        Reason::CarrierLost if kind == CarrierKind::Tls => LossCause::Other,
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
        let resolve = quic::DialError::Resolve(vec![(name, "no such host".to_owned())]);
        assert_eq!(of_quic(&resolve, |_| true), LossCause::Dns);
        let connect = |reason| {
            let there = "192.0.2.1:443".parse().unwrap();
            quic::DialError::Connect(vec![(there, Refusal::new(reason, ""))])
        };
        for (reason, routed, cause) in [
            (Reason::IdleTimeout, true, LossCause::Timeout),
            (Reason::IdleTimeout, false, LossCause::NoRoute),
            (Reason::CarrierLost, true, LossCause::Timeout),
            (Reason::Unauthenticated, true, LossCause::Tls),
            (Reason::UnsupportedVersion, true, LossCause::Tls),
            (Reason::Overloaded, true, LossCause::Refused),
        ] {
            assert_eq!(of_quic(&connect(reason), |_| routed), cause, "{reason}");
        }
    }

    #[test]
    fn what_stood_in_the_way_of_tls_says_more_than_the_silence_of_udp() {
        let there: SocketAddr = "192.0.2.1:443".parse().unwrap();
        let place: tunnel_model::HostPort = "192.0.2.1:443".parse().unwrap();
        let proxy = tls::ProxyError {
            proxy: place.clone(),
            failure: tls::ProxyFailure::Silent,
        };
        for (failure, cause) in [
            (Failure::Proxy(proxy), LossCause::Proxy),
            (Failure::Inspected, LossCause::Tls),
            (Failure::Portal, LossCause::Tls),
            (Failure::NotTls, LossCause::Tls),
            (Failure::Silent, LossCause::Timeout),
            (Failure::Unreachable("refused".to_owned()), LossCause::Timeout),
            (
                Failure::Refused(Refusal::new(Reason::Overloaded, "")),
                LossCause::Refused,
            ),
        ] {
            let silent = Refusal::new(Reason::TargetUnreachable, "no answer");
            let error = DialError::Neither {
                quic: quic::DialError::Connect(vec![(there, silent)]),
                tls: tls::DialError::Connect(vec![(place.clone(), failure.clone())]),
            };
            assert_eq!(of_dial(&error, |_| true), cause, "{failure:?}");
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
            assert_eq!(of_end(&Refusal::new(reason, ""), CarrierKind::Quic), cause, "{reason}");
        }
        let cut = Refusal::new(Reason::CarrierLost, "");
        assert_eq!(of_end(&cut, CarrierKind::Tls), LossCause::Other);
        // A gateway that answers and does not want us has refused us, whatever it says.
        assert_eq!(of_greeting(&Refusal::new(Reason::Internal, "")), LossCause::Refused);
        assert_eq!(of_greeting(&Refusal::new(Reason::IdleTimeout, "")), LossCause::Timeout);
    }
}
