//! One stream from the gateway: judged, dialled, relayed.

use std::sync::Arc;

use tokio::net::TcpStream;
use tracing::{debug, info};
use tunnel_carrier::{Incoming, relay};
use tunnel_model::Reason;

use super::Shared;
use crate::targets::dial;

/// Serves a stream to its end. Their number is bounded by the session's own limit.
pub(super) async fn serve(shared: Arc<Shared>, incoming: Incoming) {
    let node = shared.state.borrow().node_name().to_owned();
    let (open, mut answer) = incoming.into_parts();
    let (target, principal, trace) = (open.target, open.principal, open.trace);
    let settings = Arc::clone(&shared.settings.borrow());
    let dialled = tokio::select! {
        dialled = dial(&settings.targets, &target, &node) => dialled,
        () = answer.abandoned() => {
            debug!(%target, %principal, %trace, "the caller went away before the target answered");
            return shared.metrics.refused(Reason::Cancelled);
        }
    };
    let mut local = match dialled {
        Ok(local) => local,
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
    let stream = match answer.accept().await {
        Ok(stream) => stream,
        Err(refusal) => {
            shared.metrics.refused(refusal.reason);
            return cut(&local);
        }
    };
    let _open = shared.metrics.stream_opened();
    debug!(%target, %principal, %trace, "stream opened");
    let cutting = shared.tasks.cutting();
    let Some(relayed) = cutting.run_until_cancelled(relay(&mut local, stream)).await else {
        return cut(&local);
    };
    shared.metrics.relayed(&relayed);
    if let Err(refusal) = &relayed.end {
        debug!(%target, %trace, reason = %refusal.reason, error = %refusal.message, "stream broke");
        cut(&local);
    }
}

/// What the target has got may be a part that looks whole: closing is then to be a reset and never an end.
fn cut(local: &TcpStream) {
    // A socket that is closed already cannot be cut and need not be.
    let _ = local.set_zero_linger();
}
