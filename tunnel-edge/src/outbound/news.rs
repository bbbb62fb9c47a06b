//! A line in the log when a listener begins to fail, fails for another reason, or works again; never one a connection.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use tracing::{debug, info, warn};
use tunnel_model::{Reason, Refusal, TraceId};

use super::{RemoteService, hint};

/// How a listener does.
#[derive(Debug)]
pub(super) struct News {
    listen: SocketAddr,
    service: RemoteService,
    /// Why the last connection failed, if it did.
    last: Mutex<Option<Reason>>,
}

impl News {
    pub(super) fn new(listen: SocketAddr, service: RemoteService) -> Self {
        Self {
            listen,
            service,
            last: Mutex::default(),
        }
    }

    pub(super) fn worked(&self) {
        if self.is_new(None) {
            info!(listen = %self.listen, service = %self.service, "the service is reached again");
        }
    }

    pub(super) fn failed(&self, why: &Refusal, trace: TraceId) {
        let (listen, service, reason) = (self.listen, &self.service, why.reason);
        if self.is_new(Some(reason)) {
            warn!(
                %listen, %service, %trace, %reason, error = %why.message, hint = hint(reason),
                "the service is not reached, connections are reset and packets lost"
            );
        } else {
            debug!(%listen, %service, %trace, %reason, error = %why.message, "a client was refused");
        }
    }

    fn is_new(&self, now: Option<Reason>) -> bool {
        // One word is all it holds: a panic elsewhere leaves nothing half done.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *last, now) != now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_failure_again_is_no_news() {
        let news = News::new("127.0.0.1:5000".parse().unwrap(), "registry".parse().unwrap());
        let steps = [
            (None, false),
            (Some(Reason::NodeOffline), true),
            (Some(Reason::NodeOffline), false),
            (Some(Reason::Denied), true),
            (None, true),
            (None, false),
        ];
        for (now, told) in steps {
            assert_eq!(news.is_new(now), told, "{now:?}");
        }
    }
}
