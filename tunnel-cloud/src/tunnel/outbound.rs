//! Streams and flows that edges open: to services of the cloud side and of other edges, by the same way as every other dial.
//!
//! Who asks is what the certificate says, and the labels are the directory's. The edge chooses a service and whose it is,
//! never an address; what its header says of a principal is not looked at.

mod flows;

use std::{net::SocketAddr, sync::Arc};

use tracing::debug;
use tunnel_carrier::{Answer, Incoming, relay};
use tunnel_daemon::udp;
use tunnel_ingress::{Dial, DialFlow, DialRequest, Dialled, Way};
use tunnel_model::{Class, Destination, Encoding, NodeId, NodeName, Principal, Protocol, Reason, Refusal, Target};
use tunnel_proto::Open;

use super::{Context, session::revoked};

/// An edge that opens streams.
#[derive(Debug, Clone)]
pub(super) struct Opener {
    pub(super) id: NodeId,
    pub(super) name: NodeName,
    /// Where its connection comes from.
    pub(super) from: SocketAddr,
}

/// Serves a stream to its end. How many an edge may open is the connection's limit, and the principal's.
pub(super) async fn serve(context: Arc<Context>, opener: Opener, incoming: Incoming) {
    let (open, answer) = incoming.into_parts();
    let (trace, protocol) = (open.trace, open.protocol);
    let over = match protocol {
        Protocol::Tcp => serve_stream(&context, &opener, open, answer).await,
        Protocol::Udp => serve_flow(&context, &opener, open, answer).await,
    };
    if let Err(refusal) = over {
        debug!(node = %opener.name, %trace, %protocol, reason = %refusal.reason, error = refusal.message, "an edge's stream is over");
    }
}

async fn serve_stream(context: &Context, opener: &Opener, open: Open, mut answer: Answer) -> Result<(), Refusal> {
    let dialling = async {
        let mut far = context.gateway.dial(wish(context, opener, open)?).await?;
        far.established().await?;
        Ok(far)
    };
    let dialled = unless_abandoned(context, &mut answer, dialling).await;
    let mut far = match dialled {
        Ok(far) => far,
        Err(refusal) => return refuse(answer, refusal).await,
    };
    // Whatever ends this before both directions have ended resets the far stream, which is dropped then.
    let near = answer.accept().await?;
    let taken_away = far.cut();
    tokio::select! {
        relayed = relay(&mut far, near) => relayed.end,
        () = taken_away => Ok(()),
    }
}

async fn serve_flow(context: &Context, opener: &Opener, open: Open, mut answer: Answer) -> Result<(), Refusal> {
    let dialling = async {
        let mut far = context.gateway.dial_flow(wish(context, opener, open)?).await?;
        far.established().await?;
        Ok(far)
    };
    let dialled = unless_abandoned(context, &mut answer, dialling).await;
    match dialled {
        Ok(far) => Err(flows::join(answer.accept_flow().await?, far, udp::IDLE).await),
        Err(refusal) => refuse(answer, refusal).await,
    }
}

/// What is dialled for an edge, as long as the edge wants it.
async fn unless_abandoned<T>(
    context: &Context,
    answer: &mut Answer,
    dialling: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let dialled = tokio::select! {
        dialled = dialling => dialled,
        () = answer.abandoned() => Err(Refusal::new(Reason::Cancelled, "the edge gave the stream up")),
    };
    let metrics = context.registry.metrics();
    metrics.edge_stream(dialled.as_ref().map(drop).map_err(|refusal| refusal.reason));
    dialled
}

async fn refuse(answer: Answer, refusal: Refusal) -> Result<(), Refusal> {
    answer.refuse(&refusal).await;
    Err(refusal)
}

/// What an edge asks for, on its own behalf.
fn wish(context: &Context, opener: &Opener, open: Open) -> Result<DialRequest, Refusal> {
    let principal = context.directory.read(|all| {
        all.get(opener.id)
            .map(|node| Principal::node(node.name.clone(), node.labels.clone()))
    });
    request(principal.ok_or_else(revoked)?, opener.from, open)
}

/// What an edge's header asks for.
fn request(principal: Principal, client: SocketAddr, open: Open) -> Result<DialRequest, Refusal> {
    if !matches!(open.target, Target::Service(_)) {
        let message = format!(
            "an edge opens streams to services, and {} is none; name one",
            open.target
        );
        return Err(Refusal::new(Reason::BadRequest, message));
    }
    if open.encoding != Encoding::Raw {
        let message = "the gateway offers no encodings; ask for the bytes as they are";
        return Err(Refusal::new(Reason::BadRequest, message));
    }
    Ok(DialRequest {
        principal,
        destination: Destination {
            node: open.node.unwrap_or_else(NodeName::cloud),
            target: open.target,
        },
        // The most urgent class is the session's own.
        class: open.class.max(Class::Interactive),
        way: Way::Edge,
        trace: open.trace,
        client,
    })
}

#[cfg(test)]
mod tests {
    use tunnel_model::{Labels, TraceId};

    use super::*;

    #[test]
    fn t2_an_edge_asks_for_services_and_never_for_an_address() {
        for target in [
            "port:22",
            "tcp:127.0.0.1:22",
            "tcp:metadata:80",
            "udp:53",
            "udp:10.0.0.1:53",
        ] {
            assert_eq!(
                asked(target, Some("edge2")).unwrap_err().reason,
                Reason::BadRequest,
                "{target}"
            );
        }
        let of_edge = asked("service:web", Some("edge2")).unwrap();
        assert_eq!(of_edge.destination.to_string(), "edge2:service:web");
        let of_cloud = asked("service:web", None).unwrap();
        assert_eq!(of_cloud.destination.to_string(), "cloud:service:web");
    }

    #[test]
    fn t2_what_an_edge_says_of_itself_changes_nothing() {
        let request = asked("service:web", None).unwrap();
        assert_eq!(request.principal.to_string(), "node:edge1");
        assert_eq!(request.class, Class::Interactive);
    }

    #[test]
    fn an_edge_is_not_offered_encodings_and_gets_none() {
        let open = Open {
            encoding: Encoding::Scrapes,
            ..open("service:web", None)
        };
        let edge1 = Principal::node("edge1".parse().unwrap(), Labels::default());
        let refusal = request(edge1, "192.0.2.1:4000".parse().unwrap(), open).unwrap_err();
        assert_eq!(refusal.reason, Reason::BadRequest);
    }

    fn asked(target: &str, node: Option<&str>) -> Result<DialRequest, Refusal> {
        let edge1 = Principal::node("edge1".parse().unwrap(), Labels::default());
        request(edge1, "192.0.2.1:4000".parse().unwrap(), open(target, node))
    }

    fn open(target: &str, node: Option<&str>) -> Open {
        Open {
            target: target.parse().unwrap(),
            protocol: Protocol::Tcp,
            encoding: Encoding::Raw,
            class: Class::Control,
            trace: TraceId::from_bytes([1; 16]),
            principal: "user:admin".to_owned(),
            node: node.map(|name| name.parse().unwrap()),
        }
    }
}
