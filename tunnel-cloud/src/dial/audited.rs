//! What the audit log hears of a stream: the grant before it is opened, and how it ended.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tunnel_ingress::{DialRequest, Way};
use tunnel_model::{Reason, Refusal};

use super::Grant;
use crate::audit::{
    Audit, Refused,
    record::{Dial, Ended, Event},
};

/// Both directions came to their end.
const OK: &str = "ok";
/// The caller's side was done with the stream before both directions had ended, as after a plain HTTP request.
const CLOSED: &str = "closed";

/// What is known of a stream for its last record. By default the stream is not on record at all.
#[derive(Debug, Default)]
pub(super) struct Audited {
    recorded: Option<Recorded>,
    caller_ended: AtomicBool,
    target_ended: AtomicBool,
    broken: OnceLock<Reason>,
}

#[derive(Debug)]
struct Recorded {
    audit: Arc<Audit>,
    since: Instant,
}

impl Audited {
    /// Records a grant.
    ///
    /// # Errors
    /// It cannot be recorded, so there is none.
    pub(super) fn grant(audit: &Arc<Audit>, request: &DialRequest, grant: &Grant) -> Result<Self, Refusal> {
        audit.grant(&Event::DialGranted(Dial::new(request, Some(grant.id))))?;
        Ok(Self {
            recorded: Some(Recorded {
                audit: Arc::clone(audit),
                since: Instant::now(),
            }),
            ..Self::default()
        })
    }

    /// The caller has sent everything.
    pub(super) fn caller_ended(&self) {
        self.caller_ended.store(true, Ordering::Relaxed);
    }

    /// The target has sent everything.
    pub(super) fn target_ended(&self) {
        self.target_ended.store(true, Ordering::Relaxed);
    }

    /// The far side did not take the stream.
    pub(super) fn refused(&self, reason: Reason) {
        // The first reason is the one that led to the others.
        let _ = self.broken.set(reason);
    }

    /// The stream failed while it ran.
    pub(super) fn broke(&self, error: &io::Error) {
        let refusal = error.get_ref().and_then(|source| source.downcast_ref::<Refusal>());
        self.refused(refusal.map_or(Reason::CarrierLost, |refusal| refusal.reason));
    }

    /// Records the end. The record waits for the next that is written: nothing blocks here.
    pub(super) fn end(&mut self, grant: &Grant) {
        let Some(Recorded { audit, since }) = self.recorded.take() else {
            return;
        };
        let cut = grant.cut().map(|why| why.reason);
        let reason = match cut.or(self.broken.get().copied()) {
            Some(reason) => reason.as_str(),
            None if *self.caller_ended.get_mut() && *self.target_ended.get_mut() => OK,
            None => CLOSED,
        };
        audit.note_soon(Event::DialEnded(Ended {
            id: grant.id,
            principal: grant.principal.to_string(),
            node: grant.destination.node.to_string(),
            target: grant.destination.target.to_string(),
            reason,
            bytes_to_target: grant.up(),
            bytes_to_caller: grant.down(),
            duration_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
            trace: grant.trace.to_string(),
        }));
    }
}

/// Records a refusal, unless nobody but an administrator asked to see it.
pub(super) fn refuse(audit: &Audit, request: &DialRequest, refusal: &Refusal) {
    if request.way != Way::Explain {
        let event = Event::DialRefused {
            dial: Dial::new(request, None),
            why: refusal.into(),
        };
        audit.refusal(Refused::Dial, &event);
    }
}

#[cfg(test)]
mod tests;
