//! Keeps the node's certificate valid.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::{info, warn};
use tunnel_identity::{Renewal, UnixTime};

use super::Shared;

/// The clock may be corrected while this sleeps, so it never sleeps for long.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);

/// Renews when it is time, or when the gateway no longer accepts the certificate: that is how a machine whose clock is
/// behind learns that it has expired.
pub(super) async fn keep_renewed(shared: Arc<Shared>) {
    let identity = &shared.identity;
    let mut rejected = shared.rejected.subscribe();
    let mut renewal = Renewal::new(*identity.validity().borrow(), &mut rand::rng());
    loop {
        let due = renewal.poll_timeout().unwrap_or(identity.now());
        let wait = due.since(identity.now()).min(LONGEST_SLEEP);
        let now = tokio::select! {
            () = sleep(wait) => identity.now(),
            _ = rejected.changed() => {
                // It may have been replaced since it was shown.
                let present = *identity.validity().borrow();
                if *rejected.borrow_and_update() == Some(present) { due } else { identity.now() }
            }
        };
        if renewal.handle_timeout(now) {
            renew(&shared, &mut renewal).await;
        }
    }
}

async fn renew(shared: &Shared, renewal: &mut Renewal) {
    let settings = Arc::clone(&shared.settings.borrow());
    match shared.identity.renew(&shared.dialer, &settings.gateways).await {
        Ok(validity) => {
            shared.metrics.renewed(Ok(()));
            info!(expires = %validity.not_after, "certificate renewed");
            renewal.handle_renewed(validity, &mut rand::rng());
        }
        Err(refusal) => {
            shared.metrics.renewed(Err(refusal.reason));
            let expires: UnixTime = shared.identity.validity().borrow().not_after;
            warn!(reason = %refusal.reason, error = %refusal.message, %expires, "certificate not renewed");
            renewal.handle_failed(shared.identity.now(), &mut rand::rng());
        }
    }
}
