//! One stream from the gateway: judged, dialled, relayed.

use std::sync::Arc;

use tokio::net::{TcpStream, UdpSocket};
use tracing::{debug, info};
use tunnel_carrier::{Answer, Incoming, Relayed, relay_until};
use tunnel_daemon::udp;
use tunnel_model::{Encoding, Protocol, Reason, Refusal};
use tunnel_proto::Open;

use super::{Shared, encoded, flows};
use crate::targets::{Reached, dial, dial_udp};

/// The socket of a stream's target.
enum Local {
    Stream(TcpStream),
    Packets(UdpSocket),
}

/// Serves a stream to its end. Their number is bounded by the session's own limit.
pub(super) async fn serve(shared: Arc<Shared>, incoming: Incoming) {
    let node = shared.state.borrow().node_name().to_owned();
    let (open, mut answer) = incoming.into_parts();
    let Open {
        target,
        protocol,
        encoding,
        class,
        principal,
        trace,
        ..
    } = open;
    // First, or what is enforced while the target is dialled would pass it by.
    let mut enforced = shared.enforced.subscribe();
    let settings = Arc::clone(&shared.settings.borrow());
    if let Err(refusal) = shared.admit(class) {
        shared.metrics.refused(refusal.reason);
        return answer.refuse(&refusal).await;
    }
    let dialling = async {
        Ok(match protocol {
            Protocol::Tcp => {
                let Reached { socket, address } = dial(&settings.targets, &target, &node).await?;
                (Local::Stream(socket), address)
            }
            Protocol::Udp => {
                let Reached { socket, address } = dial_udp(&settings.targets, &target, &node).await?;
                (Local::Packets(socket), address)
            }
        })
    };
    let dialled: Result<_, Refusal> = tokio::select! {
        dialled = dialling => dialled,
        () = answer.abandoned() => {
            debug!(%target, %principal, %trace, "the caller went away before the target answered");
            return shared.metrics.refused(Reason::Cancelled);
        }
    };
    let (local, address) = match dialled {
        Ok(reached) => reached,
        Err(refusal) => {
            shared.metrics.refused(refusal.reason);
            let reason = refusal.reason;
            if matches!(reason, Reason::NotAllowed | Reason::UnknownService) {
                info!(%target, %principal, %trace, %reason, "a caller was refused");
            } else {
                debug!(%target, %principal, %trace, %reason, error = %refusal.message, "the target was not reached");
            }
            return answer.refuse(&refusal).await;
        }
    };
    debug!(%target, %principal, %trace, "the target is there");
    let lost = async {
        loop {
            // The sender lives in shared: waiting cannot fail.
            let _ = enforced.changed().await;
            let now = Arc::clone(&shared.settings.borrow());
            if let Err(why) = now.targets.still_permits(&target, &settings.targets, address, &node) {
                info!(%target, %principal, %trace, reason = %why.reason, "a stream is cut: the configuration does not allow it any more");
                return why;
            }
        }
    };
    let joined = match local {
        Local::Stream(local) if encoding == Encoding::Raw => join(&shared, local, answer, lost).await,
        // On the heap: few streams are of this kind, and each task has room for the largest.
        Local::Stream(local) => Box::pin(encoded::join(&shared, local, answer, (encoding, &target), lost)).await,
        Local::Packets(socket) => join_packets(&shared, &socket, answer, lost).await,
    };
    match joined {
        Ok(Some(relayed)) => {
            shared.metrics.relayed(&relayed);
            if let Err(refusal) = &relayed.end {
                debug!(%target, %trace, reason = %refusal.reason, error = %refusal.message, "stream broke");
            }
        }
        Ok(None) => {}
        Err(refusal) => shared.metrics.refused(refusal.reason),
    }
}

/// Accepts a stream and joins it with its target, until it has lost its right; `None` if the process ended first.
async fn join(
    shared: &Shared,
    mut local: TcpStream,
    answer: Answer,
    lost: impl Future<Output = Refusal>,
) -> Result<Option<Relayed>, Refusal> {
    let stream = answer.accept().await.inspect_err(|_| cut(&local))?;
    let _open = shared.metrics.stream_opened();
    let cutting = shared.tasks.cutting();
    // In its place: a future that is handed over is held twice and moved.
    let relayed = tokio::select! {
        relayed = relay_until(&mut local, stream, lost) => Some(relayed),
        () = cutting.cancelled() => None,
    };
    if relayed.as_ref().is_none_or(|relayed| relayed.end.is_err()) {
        cut(&local);
    }
    Ok(relayed)
}

/// Likewise for a flow of packets.
async fn join_packets(
    shared: &Shared,
    socket: &UdpSocket,
    answer: Answer,
    lost: impl Future<Output = Refusal>,
) -> Result<Option<Relayed>, Refusal> {
    let flow = answer.accept_flow().await?;
    let _open = shared.metrics.stream_opened();
    let cutting = shared.tasks.cutting();
    Ok(cutting
        .run_until_cancelled(flows::relay(socket, flow, udp::IDLE, lost))
        .await)
}

/// What the target has got may be a part that looks whole: closing is then to be a reset and never an end.
pub(super) fn cut(local: &TcpStream) {
    // A socket that is closed already cannot be cut and need not be.
    let _ = local.set_zero_linger();
}
