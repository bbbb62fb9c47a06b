//! A granted stream: it counts what passes, keeps to the limits, and ends when it is cut.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tunnel_ingress::Dialled;
use tunnel_model::{Reason, Refusal};

use super::grants::{Lease, Wait};

/// A stream that can be made void with a reason.
pub trait Carried: Dialled {
    /// Makes it void, and tells the far end why where it has a way to.
    fn reset(self, why: &Refusal);
}

/// A stream and its place in the table of grants. Each byte costs what the stream itself does, and each call an atomic
/// addition more.
#[derive(Debug)]
pub struct Granted<S: Carried> {
    /// Nothing once it was cut.
    stream: Option<S>,
    reading: Pause,
    writing: Pause,
    lease: Lease,
}

/// The rest of a direction, while it has used more than its share.
#[derive(Debug, Default)]
struct Pause(Option<Pin<Box<Sleep>>>);

impl Pause {
    fn begin(&mut self, wait: Option<Duration>) {
        if let Some(wait) = wait {
            self.0 = Some(Box::pin(sleep(wait)));
        }
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.0 {
            ready!(sleep.as_mut().poll(cx));
            self.0 = None;
        }
        Poll::Ready(())
    }
}

impl<S: Carried> Granted<S> {
    pub(super) fn new(stream: S, lease: Lease) -> Self {
        Self {
            stream: Some(stream),
            reading: Pause::default(),
            writing: Pause::default(),
            lease,
        }
    }

    /// Its place in the table.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Does something with the stream unless it was cut, and notices a cut while that is waiting.
    fn poll_unless_cut<R>(
        &mut self,
        wait: Wait,
        cx: &mut Context<'_>,
        act: impl FnOnce(&mut Self, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if self.lease.grant().cut().is_none() {
            let acted = act(self, cx);
            if let Poll::Ready(Err(error)) = &acted {
                self.lease.audited.broke(error);
            }
            if acted.is_ready() || self.lease.grant().poll_cut(wait, cx).is_pending() {
                return acted;
            }
        }
        Poll::Ready(Err(self.break_off()))
    }

    fn break_off(&mut self) -> io::Error {
        let why = self.why();
        if let Some(stream) = self.stream.take() {
            stream.reset(&why);
        }
        io::Error::new(io::ErrorKind::ConnectionReset, why)
    }

    fn why(&self) -> Refusal {
        let gone = || Refusal::new(Reason::Cancelled, "the stream was cut");
        self.lease.grant().cut().cloned().unwrap_or_else(gone)
    }

    fn stream(&mut self) -> io::Result<Pin<&mut S>> {
        match &mut self.stream {
            Some(stream) => Ok(Pin::new(stream)),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn poll_read_some(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.reading.poll_over(cx));
        let before = buf.filled().len();
        match self.lease.portion().filter(|portion| *portion < buf.remaining()) {
            None => ready!(self.stream()?.poll_read(cx, buf))?,
            Some(portion) => {
                let mut part = ReadBuf::new(buf.initialize_unfilled_to(portion));
                ready!(self.stream()?.poll_read(cx, &mut part))?;
                let read = part.filled().len();
                buf.advance(read);
            }
        }
        let read = buf.filled().len() - before;
        if read == 0 && buf.remaining() > 0 {
            self.lease.audited.target_ended();
        }
        let wait = self.lease.received(read);
        self.reading.begin(wait);
        Poll::Ready(Ok(()))
    }

    fn poll_write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.writing.poll_over(cx));
        let most = self.lease.portion().unwrap_or(usize::MAX).min(bytes.len());
        let part = bytes.get(..most).unwrap_or(bytes);
        let written = ready!(self.stream()?.poll_write(cx, part))?;
        let wait = self.lease.sent(written);
        self.writing.begin(wait);
        Poll::Ready(Ok(written))
    }
}

impl<S: Carried> AsyncRead for Granted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.get_mut()
            .poll_unless_cut(Wait::Read, cx, |granted, cx| granted.poll_read_some(cx, buf))
    }
}

impl<S: Carried> AsyncWrite for Granted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut()
            .poll_unless_cut(Wait::Write, cx, |granted, cx| granted.poll_write_some(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = |granted: &mut Self, cx: &mut Context<'_>| granted.stream()?.poll_flush(cx);
        self.get_mut().poll_unless_cut(Wait::Write, cx, flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shutdown = |granted: &mut Self, cx: &mut Context<'_>| {
            ready!(granted.stream()?.poll_shutdown(cx))?;
            granted.lease.audited.caller_ended();
            Poll::Ready(Ok(()))
        };
        self.get_mut().poll_unless_cut(Wait::Write, cx, shutdown)
    }
}

impl<S: Carried> Dialled for Granted<S> {
    async fn established(&mut self) -> Result<(), Refusal> {
        let cut = self.lease.wait_cut();
        let refusal = match &mut self.stream {
            Some(stream) => tokio::select! {
                biased;
                why = cut => why,
                established = stream.established() => {
                    return established.inspect_err(|refusal| self.lease.audited.refused(refusal.reason));
                }
            },
            None => self.why(),
        };
        self.break_off();
        Err(refusal)
    }

    fn cut(&self) -> impl Future<Output = ()> + Send + use<S> {
        let cut = self.lease.wait_cut();
        async move {
            cut.await;
        }
    }
}

#[cfg(test)]
mod tests;
