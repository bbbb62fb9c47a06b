//! What the driver, the handles and the streams of a session share.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};
use tunnel_model::{Reason, Refusal};
use tunnel_proto::{Session, StreamId};

use super::flow::Routes;
use crate::quic::{self, Grant};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) connection: quinn::Connection,
    state: Mutex<State>,
    /// Where datagrams go.
    pub(super) routes: Routes,
    /// The session may have something to send, to say or to wait for.
    pub(super) changed: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) session: Session,
    /// Who waits for [`tunnel_proto::Event::Received`].
    pub(super) ends: HashMap<StreamId, oneshot::Sender<Result<(), Refusal>>>,
    /// Who waits for a pong.
    pub(super) pongs: HashMap<u64, oneshot::Sender<Duration>>,
    /// Why the session ended, by whoever knew first.
    pub(super) failure: Option<Refusal>,
    /// Why we asked the peer to go.
    pub(super) leaving: Option<Refusal>,
    /// What the streams may have of the connection's window.
    grant: Grant,
}

impl Shared {
    pub(super) fn new(connection: quinn::Connection, session: Session) -> Self {
        Self {
            state: Mutex::new(State {
                grant: Grant::new(&connection),
                session,
                ends: HashMap::new(),
                pongs: HashMap::new(),
                failure: None,
                leaving: None,
            }),
            connection,
            routes: Routes::default(),
            changed: Notify::new(),
        }
    }

    /// Calls the machine, and has the driver look if something came of it. Most calls bring nothing: streams are opened
    /// and accepted without a word on the control stream.
    pub(super) fn with<T>(&self, call: impl FnOnce(&mut State) -> T) -> T {
        let (result, news) = self.with_quietly(|state| {
            let result = call(state);
            (result, state.session.has_news())
        });
        if news {
            self.changed.notify_one();
        }
        result
    }

    /// Calls the machine for the driver itself. Short and without waiting, so that a plain mutex does.
    pub(super) fn with_quietly<T>(&self, call: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        call(&mut state)
    }

    /// A stream is there that may have data waiting.
    pub(super) fn stream_opened(&self) {
        self.with_quietly(|state| state.grant.opened(&self.connection));
    }

    /// It is no more.
    pub(super) fn stream_closed(&self) {
        self.with_quietly(|state| state.grant.closed(&self.connection));
    }

    /// Ends the session.
    pub(super) fn fail(&self, refusal: Refusal) {
        quic::close(&self.connection, &refusal);
        self.with(|state| {
            state.failure.get_or_insert(refusal);
        });
    }

    /// Why the session ended.
    pub(super) fn why_closed(&self) -> Refusal {
        let known = self.with(|state| state.failure.clone());
        known.unwrap_or_else(|| match self.connection.close_reason() {
            Some(error) => quic::refusal_of(&error),
            None => Refusal::new(Reason::CarrierLost, "the session is not connected"),
        })
    }

    /// What a connection error means: our own words if we closed it.
    pub(super) fn explain(&self, error: &quinn::ConnectionError) -> Refusal {
        match error {
            quinn::ConnectionError::LocallyClosed => self.why_closed(),
            _ => quic::refusal_of(error),
        }
    }
}
