//! HTTP/1.1 and 1.0, as a forward proxy speaks them: CONNECT, and plain requests in absolute form; and as a server for
//! many hosts does, where `Host` decides.
//!
//! | module | what |
//! |---|---|
//! | `head` | where heads end, what their fields say about bodies |
//! | `authority`, `request`, `response` | heads in which nothing is ambiguous |
//! | `body` | where bodies end |
//! | `forward` | heads rewritten for the next hop |
//! | `refuse` | refusals as responses |
//! | `pump`, `exchange` | bytes on their way, both directions at once |
//! | this one | a caller's connection: one request after the other |

mod authority;
mod body;
mod exchange;
mod forward;
mod head;
mod pump;
mod refuse;
mod request;
mod response;
#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};
use rand::Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout_at},
};
use tunnel_model::{Destination, Principal, Reason, Refusal, TraceId};

use self::{
    body::Framing,
    exchange::{Backend, Exchange, Outcome},
    head::{HeadError, HeadScan},
    refuse::Manner,
    request::{Asked, Request},
};
use super::{
    Credential, Dial, DialRequest, Door, Way,
    client::{Client, READ},
    relay::relay,
    session::{NotDialled, Session},
};

/// Serves a connection whose first bytes are in `buf`; the first head is due at `deadline`.
pub(super) async fn run<D: Dial>(session: Session<D>, client: Client, buf: BytesMut, deadline: Instant) {
    let mut connection = Connection {
        session,
        client,
        buf,
        backend: None,
    };
    let mut next = connection.next_request(Some(deadline)).await;
    let end = loop {
        let step = match next {
            Next::Request(request) => connection.serve(&request).await,
            Next::Bad(error) => connection.refuse_head(error).await,
            Next::End => Step::Finish,
        };
        match step {
            Step::Next => next = connection.next_request(None).await,
            end => break end,
        }
    };
    connection.end(end).await;
}

/// A caller's connection between and during requests.
struct Connection<D: Dial> {
    session: Session<D>,
    client: Client,
    /// What was read and not used yet.
    buf: BytesMut,
    /// The stream that served the last request, if it can serve another.
    backend: Option<Backend<D::Stream>>,
}

/// What the caller does next.
enum Next {
    Request(Box<Request>),
    Bad(HeadError),
    /// Nothing more.
    End,
}

/// What happens to the connection after a request.
enum Step<S> {
    /// It takes another request.
    Next,
    /// It ends.
    Finish,
    /// It is reset.
    Break,
    /// It carries something else from here on: first this, then what the stream brings.
    Relay { first: BytesMut, stream: S },
}

impl<D: Dial> Connection<D> {
    /// Waits for a request: the first until its deadline, others for as long as a connection may be idle.
    async fn next_request(&mut self, first: Option<Instant>) -> Next {
        if self.buf.is_empty() {
            // It may have grown with a body; an idle connection holds little.
            self.buf = BytesMut::new();
        }
        let mut scan = HeadScan::default();
        let idle = Instant::now() + self.session.limits.idle;
        let mut due = first;
        loop {
            match scan.find(&self.buf) {
                Ok(None) => {}
                Ok(Some(len)) => return self.read_request(len),
                Err(error) => return Next::Bad(error),
            }
            let begun = !self.buf.is_empty();
            if begun && due.is_none() {
                due = Some(Instant::now() + self.session.limits.handshake);
            }
            self.buf.reserve(READ);
            let read = tokio::select! {
                read = timeout_at(due.unwrap_or(idle), self.client.read_buf(&mut self.buf)) => read,
                () = self.session.stopping.cancelled(), if !begun => return Next::End,
            };
            match read {
                Ok(Ok(0)) if begun => return Next::Bad(HeadError::Truncated),
                Ok(Ok(0)) => return Next::End,
                Ok(Ok(_)) => {}
                Err(_) if begun => return Next::Bad(HeadError::TooSlow),
                // Gone, or idle for too long.
                Ok(Err(_)) | Err(_) => return Next::End,
            }
        }
    }

    fn read_request(&mut self, len: usize) -> Next {
        let head = self.buf.split_to(len).freeze();
        let request = match self.session.door {
            Door::Http => Request::parse_by_host(head),
            Door::Proxy | Door::Sni { .. } | Door::Forward(_) => Request::parse(head),
        };
        match request {
            // They would have to wait for an answer to be told what they mean; whoever sends them hopes for a proxy
            // that does not.
            Ok(request) if request.upgrade && !self.buf.is_empty() => Next::Bad(HeadError::BytesAfterUpgrade),
            Ok(request) => Next::Request(Box::new(request)),
            Err(error) => Next::Bad(error),
        }
    }

    async fn serve(&mut self, request: &Request) -> Step<D::Stream> {
        let (principal, destination) = match self.admit(request).await {
            Ok(admitted) => admitted,
            Err(refusal) => return self.refuse(request, &refusal).await,
        };
        let (trace, span) = {
            let mut rng = rand::rng();
            let trace = forward::trace_of(request).unwrap_or_else(|| TraceId::random(&mut rng));
            (trace, rng.next_u64())
        };
        let way = match &request.asked {
            Asked::Tunnel { .. } => Way::Connect,
            Asked::Resource { .. } => self.session.door.way_of_requests(),
        };
        let wish = self.session.request(way, principal, destination, request.class, trace);
        match &request.asked {
            Asked::Tunnel { .. } => self.tunnel(request, wish).await,
            Asked::Resource { path, .. } => {
                let head = forward::request_head(request, path, trace, span);
                self.pass_on(request, head, wish).await
            }
        }
    }

    /// Who asks, and for what; the second is not looked at before the first is known.
    async fn admit(&mut self, request: &Request) -> Result<(Principal, Destination), Refusal> {
        let shown = request.fields.all("proxy-authorization").next();
        let credential = shown.map(Credential::from_field);
        // What cannot be read was shown all the same: the certificate does not stand in for it.
        let principal = match credential {
            Some(None) => self.session.behind.authenticate(None, self.session.peer).await?,
            credential => self.session.authenticate(credential.flatten()).await?,
        };
        let (host, port) = request.asked.host_port();
        let destination = self.session.destination(&principal, host, port)?;
        Ok((principal, destination))
    }

    async fn tunnel(&mut self, request: &Request, wish: DialRequest) -> Step<D::Stream> {
        match self.session.connect(&mut self.client, &mut self.buf, wish).await {
            Ok(stream) => {
                self.session.metrics.granted(Way::Connect);
                let first = BytesMut::from(&b"HTTP/1.1 200 Connection established\r\n\r\n"[..]);
                Step::Relay { first, stream }
            }
            Err(NotDialled::Refused(refusal)) => self.refuse(request, &refusal).await,
            Err(NotDialled::CallerGone) => Step::Break,
        }
    }

    async fn pass_on(&mut self, request: &Request, head: Bytes, wish: DialRequest) -> Step<D::Stream> {
        let mut kept = self.reuse(&wish).await;
        loop {
            let mut backend = match kept.take() {
                Some(backend) => backend,
                None => match self.session.dial(&mut self.client, &mut self.buf, wish.clone()).await {
                    Ok(stream) => Backend::new(stream, wish.clone()),
                    Err(NotDialled::Refused(refusal)) => return self.refuse(request, &refusal).await,
                    Err(NotDialled::CallerGone) => return Step::Break,
                },
            };
            let stopping = &self.session.stopping;
            let mut cut = backend.take_cut();
            let exchange = Exchange::new(&mut self.client, &mut self.buf, &mut backend, request, head.clone());
            let outcome = tokio::select! {
                biased;
                outcome = exchange.run(|| stopping.is_cancelled()) => outcome,
                // A caller who takes nothing would keep what it may not have any more.
                () = &mut cut => Outcome::Broken,
            };
            backend.put_cut(cut);
            match outcome {
                // Only a stream that had been used before goes stale, so the next round dials.
                Outcome::Stale => {}
                outcome => return self.after(request, backend, outcome).await,
            }
        }
    }

    /// The stream that served the last request, if it may serve this one; otherwise it ends.
    async fn reuse(&mut self, wish: &DialRequest) -> Option<Backend<D::Stream>> {
        let mut backend = self.backend.take()?;
        if backend.serves(wish).await {
            return Some(backend);
        }
        self.retire(backend);
        None
    }

    /// Has a stream end in its own time.
    fn retire(&self, backend: Backend<D::Stream>) {
        self.session.tasks.spawn_cut(backend.retire());
    }

    async fn after(&mut self, request: &Request, backend: Backend<D::Stream>, outcome: Outcome) -> Step<D::Stream> {
        match outcome {
            Outcome::Done { caller, target } => {
                self.session.metrics.granted(self.session.door.way_of_requests());
                if caller && !target {
                    self.retire(backend);
                } else {
                    self.backend = Some(backend);
                }
                if caller { Step::Next } else { Step::Finish }
            }
            Outcome::Answered => {
                self.session.metrics.granted(self.session.door.way_of_requests());
                Step::Finish
            }
            Outcome::Switched(head) => {
                self.session.metrics.granted(Way::Upgrade);
                let (stream, rest) = backend.into_parts();
                let mut first = BytesMut::from(head);
                first.unsplit(rest);
                Step::Relay { first, stream }
            }
            Outcome::Refused(refusal) => self.refuse(request, &refusal).await,
            Outcome::Misbehaved(error) => self.refuse_head(error).await,
            Outcome::Broken | Outcome::Stale => Step::Break,
        }
    }

    /// Answers with a refusal. The connection goes on only where the next byte is certain to begin a request.
    async fn refuse(&mut self, request: &Request, refusal: &Refusal) -> Step<D::Stream> {
        let plain = matches!(request.asked, Asked::Resource { .. }) && request.framing == Framing::None;
        let close = !plain
            || !request.persistent
            || request.upgrade
            || refusal.reason == Reason::BadRequest
            || self.session.stopping.is_cancelled();
        let manner = Manner {
            json: request.accepts_json(),
            head: request.is_head(),
            close,
        };
        let status = match (&self.session.door, refusal.reason) {
            // A browser takes 407 from what is no proxy for an attack.
            (Door::Http, Reason::Unauthenticated) => 403,
            (_, reason) => refuse::status_of(reason),
        };
        self.answer(status, refusal, manner).await
    }

    async fn refuse_head(&mut self, error: HeadError) -> Step<D::Stream> {
        let refusal = Refusal::new(Reason::BadRequest, error.to_string());
        let manner = Manner {
            close: true,
            ..Manner::default()
        };
        self.answer(error.status(), &refusal, manner).await
    }

    async fn answer(&mut self, status: u16, refusal: &Refusal, manner: Manner) -> Step<D::Stream> {
        self.session.refused(refusal);
        let response = refuse::response(status, refusal, manner);
        match self.client.write_all(&response).await {
            Ok(()) if manner.close => Step::Finish,
            Ok(()) => Step::Next,
            Err(_) => Step::Break,
        }
    }

    async fn end(self, step: Step<D::Stream>) {
        match step {
            Step::Relay { first, stream } => relay(self.client, self.buf, stream, first).await,
            Step::Finish | Step::Next => {
                let retired = async {
                    if let Some(backend) = self.backend {
                        backend.retire().await;
                    }
                };
                tokio::join!(self.client.finish(), retired);
            }
            // Dropped, both are reset.
            Step::Break => {}
        }
    }
}
