//! One request passed to a target, and its answer passed back, both at once.

use std::{future::poll_fn, io, pin::Pin, task::Poll, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf},
    time::timeout,
};
use tunnel_model::{Reason, Refusal};

use super::{
    body::Framing,
    forward::response_head,
    head::{HeadError, HeadScan, Version},
    pump::{Pump, PumpError},
    request::Request,
    response::Response,
};
use crate::{
    DialRequest, Dialled,
    client::{Client, READ, broken, discard},
    halves,
};

/// How long the orderly end of a stream nobody needs any more may take.
const RETIREMENT: Duration = Duration::from_secs(5);

/// How much a target may still send meanwhile, in bytes.
const RETIREMENT_BYTES: usize = 16 * 1024;

/// A stream to a target that takes one request after the other, all of one principal: rights were checked when it was
/// opened.
pub(super) struct Backend<S> {
    read: ReadHalf<S>,
    write: WriteHalf<S>,
    buf: BytesMut,
    /// What it was opened for.
    wish: DialRequest,
    /// Resolves when the stream is taken away.
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// It has answered before, so that its silent end may be the target's idea of idleness.
    used: bool,
}

impl<S: Dialled> Backend<S> {
    pub(super) fn new(stream: S, wish: DialRequest) -> Self {
        let cut = Box::pin(stream.cut());
        let (read, write) = tokio::io::split(stream);
        let buf = BytesMut::new();
        Self {
            read,
            write,
            buf,
            wish,
            cut,
            used: false,
        }
    }

    /// Resolves when the stream is taken away from its caller; whoever takes this looks out for it from then on.
    pub(super) fn take_cut(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        std::mem::replace(&mut self.cut, Box::pin(std::future::pending()))
    }

    /// Puts back what [`Self::take_cut`] took.
    pub(super) fn put_cut(&mut self, cut: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.cut = cut;
    }

    /// Whether a further request may go this way: it is the same wish of the same principal, as urgent, and the target
    /// has neither ended nor sent what nobody asked for.
    pub(super) async fn serves(&mut self, wish: &DialRequest) -> bool {
        let same = self.wish.destination == wish.destination
            && self.wish.principal == wish.principal
            && self.wish.class == wish.class;
        same && self.buf.is_empty() && self.is_quiet().await
    }

    async fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut byte);
            Poll::Ready(Pin::new(&mut self.read).poll_read(cx, &mut buf).is_pending())
        })
        .await
    }

    fn is_stale(&self) -> bool {
        self.used && self.buf.is_empty()
    }

    /// Ends the stream in order: what the target still has to say is its end, or nobody's business.
    pub(super) async fn retire(mut self) {
        let ended = async {
            self.write.shutdown().await?;
            discard(&mut self.read, RETIREMENT_BYTES).await
        };
        // A target that does not end in turn gets a reset.
        let _ = timeout(RETIREMENT, ended).await;
    }

    /// The stream itself, and what was read of it.
    pub(super) fn into_parts(self) -> (S, BytesMut) {
        (self.read.unsplit(self.write), self.buf)
    }
}

/// How an exchange ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Whole. Whether the caller's connection and the target's may go on.
    Done { caller: bool, target: bool },
    /// The caller has its answer, the target not the whole request.
    Answered,
    /// The target ended before it answered, having been idle, and the request may be repeated.
    Stale,
    /// No answer has begun, and this is to be said instead.
    Refused(Refusal),
    /// The caller broke the rules before its answer began.
    Misbehaved(HeadError),
    /// Something broke after the answer had begun, or the caller went away: both sides are to be reset.
    Broken,
    /// Both sides speak something else now; this head goes first.
    Switched(Bytes),
}

/// The caller's direction.
struct Upload<'a> {
    pump: Pump<'a>,
    state: UploadState,
    /// Whatever comes after the request breaks the rules.
    nothing_more: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UploadState {
    Sending,
    /// The target has it all.
    Sent,
    /// The target takes no more of it, and may still answer.
    Unwanted,
}

impl Upload<'_> {
    /// Goes on until the state changes; once all is sent, until the caller breaks off. May be cancelled.
    async fn run(
        &mut self,
        client: &mut (impl AsyncRead + Unpin),
        target: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Outcome> {
        if self.state != UploadState::Sending {
            return Err(self.watch(client).await);
        }
        self.state = match self.pump.run(client, target).await {
            Ok(()) => UploadState::Sent,
            Err(PumpError::Write(_)) => UploadState::Unwanted,
            Err(PumpError::Malformed(error)) => return Err(Outcome::Misbehaved(error.into())),
            Err(PumpError::Read(_) | PumpError::Cut) => return Err(Outcome::Broken),
        };
        Ok(())
    }

    async fn watch(&mut self, client: &mut (impl AsyncRead + Unpin)) -> Outcome {
        let ahead = self.pump.rest();
        if self.nothing_more {
            match client.read_buf(ahead).await {
                Ok(0) => std::future::pending().await,
                Ok(_) => return Outcome::Misbehaved(HeadError::BytesAfterUpgrade),
                Err(_) => return Outcome::Broken,
            }
        }
        broken(client, ahead).await;
        Outcome::Broken
    }
}

/// Both sides of a request on its way.
pub(super) struct Exchange<'a, S> {
    client_read: halves::ReadHalf<'a>,
    client_write: halves::WriteHalf<'a>,
    backend: &'a mut Backend<S>,
    request: &'a Request,
    upload: Upload<'a>,
    told_to_continue: bool,
}

impl<'a, S: Dialled> Exchange<'a, S> {
    /// `head` is the request's head as the target shall see it; `ahead` holds what the caller sent after its own.
    pub(super) fn new(
        client: &'a mut Client,
        ahead: &'a mut BytesMut,
        backend: &'a mut Backend<S>,
        request: &'a Request,
        head: Bytes,
    ) -> Self {
        let (client_read, client_write) = client.split();
        let upload = Upload {
            pump: Pump::new(head, ahead, request.framing),
            state: UploadState::Sending,
            nothing_more: request.upgrade,
        };
        Self {
            client_read,
            client_write,
            backend,
            request,
            upload,
            told_to_continue: false,
        }
    }

    /// Passes the request on and its answer back. When the answer begins, `last` tells whether the caller's connection
    /// is to end with it.
    pub(super) async fn run(mut self, last: impl FnOnce() -> bool) -> Outcome {
        match self.answer().await {
            Ok(response) if response.is_switch() => self.switched(&response),
            Ok(response) => self.deliver(&response, last()).await,
            Err(outcome) => outcome,
        }
    }

    /// The final response's head; those that only announce it go to the caller at once.
    async fn answer(&mut self) -> Result<Response, Outcome> {
        loop {
            let response = self.next_response().await?;
            if !response.is_interim() {
                return Ok(response);
            }
            self.told_to_continue |= response.status == 100;
            // HTTP/1.0 knows no interim responses (RFC 9110 section 15.2).
            if self.request.version == Version::Http11 {
                let head = response_head(&response, false);
                self.client_write.write_all(&head).await.map_err(|_| Outcome::Broken)?;
            }
        }
    }

    async fn next_response(&mut self) -> Result<Response, Outcome> {
        let mut scan = HeadScan::default();
        let raw = loop {
            tokio::select! {
                // The request first: it goes out with the stream's own header, which reading would send ahead.
                biased;
                sent = self.upload.run(&mut self.client_read, &mut self.backend.write) => sent?,
                raw = read_head(&mut self.backend.read, &mut self.backend.buf, &mut scan) => break raw,
            }
        };
        match raw.and_then(|raw| Ok(Response::parse(raw, self.request)?)) {
            Ok(response) => Ok(response),
            Err(NoHead::Cut(_)) if self.backend.is_stale() && self.request.is_repeatable() => Err(Outcome::Stale),
            Err(NoHead::Cut(refusal)) => Err(Outcome::Refused(refusal)),
            Err(NoHead::Malformed(error)) => Err(bad_answer(error.to_string())),
        }
    }

    fn switched(mut self, response: &Response) -> Outcome {
        // What the caller sent before it could know must not reach the target as the new protocol.
        let now = self
            .upload
            .run(&mut self.client_read, &mut self.backend.write)
            .now_or_never();
        match now {
            Some(Err(outcome)) => outcome,
            _ if !self.request.upgrade => bad_answer("it switches protocols unasked"),
            _ if response.fields.all("upgrade").next().is_none() => bad_answer("it does not say what it switches to"),
            _ => Outcome::Switched(response_head(response, false)),
        }
    }

    async fn deliver(mut self, response: &Response, last: bool) -> Outcome {
        // A caller whose request is not through yet, or who was offered another protocol in vain, may send what cannot
        // be told from a request.
        let clear = self.upload.state == UploadState::Sent && !self.request.upgrade;
        let caller = clear && !last && self.request.persistent && response.framing != Framing::UntilClose;
        self.upload.nothing_more = false;
        let mut download = Pump::new(
            response_head(response, !caller),
            &mut self.backend.buf,
            response.framing,
        );
        loop {
            tokio::select! {
                sent = self.upload.run(&mut self.client_read, &mut self.backend.write) => match sent {
                    Ok(()) => {}
                    Err(_) => return Outcome::Broken,
                },
                received = download.run(&mut self.backend.read, &mut self.client_write) => match received {
                    Ok(()) => break,
                    Err(error) => {
                        tracing::debug!(%error, "an answer broke off");
                        return Outcome::Broken;
                    }
                },
            }
        }
        self.backend.used = true;
        if self.backend.buf.is_empty() {
            self.backend.buf = BytesMut::new();
        }
        let waits = self.request.expects_continue() && !self.told_to_continue;
        while self.upload.state == UploadState::Sending && response.persistent && !waits {
            if self
                .upload
                .run(&mut self.client_read, &mut self.backend.write)
                .await
                .is_err()
            {
                return Outcome::Broken;
            }
        }
        if self.upload.state != UploadState::Sent {
            return Outcome::Answered;
        }
        let target = response.persistent && self.request.persistent && !self.request.upgrade;
        Outcome::Done { caller, target }
    }
}

fn bad_answer(what: impl std::fmt::Display) -> Outcome {
    let message = format!("the target's answer is not proper HTTP: {what}");
    Outcome::Refused(Refusal::new(Reason::Protocol, message))
}

enum NoHead {
    /// There is none, for this reason.
    Cut(Refusal),
    Malformed(HeadError),
}

impl NoHead {
    /// The target was refused, or broke: the stream knows why.
    fn broken(error: io::Error) -> Self {
        let known = error.into_inner().and_then(|source| source.downcast().ok());
        Self::Cut(known.map_or_else(no_answer, |refusal| *refusal))
    }
}

fn no_answer() -> Refusal {
    Refusal::new(
        Reason::TargetReset,
        "the target ended the connection without an answer; its own log may say why",
    )
}

impl From<HeadError> for NoHead {
    fn from(error: HeadError) -> Self {
        Self::Malformed(error)
    }
}

/// Reads a complete head; may be cancelled and called again with the same `buf` and `scan`.
async fn read_head(
    from: &mut (impl AsyncRead + Unpin),
    buf: &mut BytesMut,
    scan: &mut HeadScan,
) -> Result<Bytes, NoHead> {
    loop {
        if let Some(len) = scan.find(buf)? {
            return Ok(buf.split_to(len).freeze());
        }
        buf.reserve(READ);
        match from.read_buf(buf).await {
            Ok(0) => return Err(NoHead::Cut(no_answer())),
            Ok(_) => {}
            Err(error) => return Err(NoHead::broken(error)),
        }
    }
}
