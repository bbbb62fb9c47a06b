//! What a stream of scrapes looks like to whoever opened it: like the stream itself.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker, ready},
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::oneshot,
};
use tunnel_model::{Reason, Refusal};

use super::gateway::{Conversation, Scrapes, State};

/// How much waits for a caller who does not read, in bytes.
const PIPE: usize = 64 << 10;

/// The caller's end of a stream of scrapes. The conversation with the edge goes on whenever one of its methods is called,
/// in the task that calls: whoever drops this ends it.
pub struct Scraped<S> {
    /// Nothing once it goes on.
    idle: Option<Idle<S>>,
    running: Option<Running>,
}

struct Idle<S> {
    stream: S,
    scrapes: Arc<Scrapes>,
    node: String,
    target: String,
    is_known: bool,
    reset: fn(S, &Refusal),
}

struct Running {
    pipe: DuplexStream,
    conversation: Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>,
    /// How it ended.
    end: Option<Result<(), Refusal>>,
    abort: Option<oneshot::Sender<Refusal>>,
    wakers: Arc<Wakers>,
}

/// Both directions wait for the one conversation.
#[derive(Default)]
struct Wakers {
    reading: AtomicWaker,
    writing: AtomicWaker,
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.reading.wake();
        self.writing.wake();
    }
}

impl<S> std::fmt::Debug for Scraped<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scraped")
            .field("idle", &self.idle.is_some())
            .finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Scraped<S> {
    /// Of a stream that was opened for scrapes of a target of a node's; `reset` makes such a stream void.
    pub fn new(stream: S, scrapes: Arc<Scrapes>, node: String, target: String, reset: fn(S, &Refusal)) -> Self {
        let idle = Idle {
            stream,
            scrapes,
            node,
            target,
            is_known: false,
            reset,
        };
        Self {
            idle: Some(idle),
            running: None,
        }
    }

    /// The stream itself, if nothing was asked yet. Whoever takes it tells the edge of it.
    pub fn stream(&mut self) -> Option<&mut S> {
        let idle = self.idle.as_mut()?;
        idle.is_known = true;
        Some(&mut idle.stream)
    }

    /// Makes the stream void.
    pub fn reset(mut self, why: &Refusal) {
        if let Some(idle) = self.idle.take() {
            return (idle.reset)(idle.stream, why);
        }
        if let Some(mut running) = self.running.take()
            && let Some(abort) = running.abort.take()
            && abort.send(why.clone()).is_ok()
        {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = running.poll(&mut cx);
        }
    }

    fn running(&mut self) -> io::Result<&mut Running> {
        if let Some(idle) = self.idle.take() {
            self.running = Some(idle.start());
        }
        self.running.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Idle<S> {
    fn start(self) -> Running {
        let Self {
            mut stream,
            scrapes,
            node,
            target,
            is_known,
            reset,
        } = self;
        let (pipe, mut caller) = duplex(PIPE);
        let (abort, aborted) = oneshot::channel();
        let conversation = async move {
            let conversation = Conversation {
                scrapes: &scrapes,
                node: &node,
                target: &target,
                caller: &mut caller,
                stream: &mut stream,
                is_known,
                state: State::default(),
            };
            let ended = tokio::select! {
                biased;
                Ok(why) = aborted => Err(why),
                ended = conversation.run() => ended,
            };
            if let Err(why) = &ended {
                reset(stream, why);
            }
            ended
        };
        Running {
            pipe,
            conversation: Box::pin(conversation),
            end: None,
            abort: Some(abort),
            wakers: Arc::default(),
        }
    }
}

impl Running {
    /// Has the conversation go on as far as it can.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), Refusal> {
        if self.end.is_none()
            && let Poll::Ready(end) = self.conversation.as_mut().poll(cx)
        {
            self.end = Some(end);
            // It holds the other end of the pipe, whose end is to be seen.
            self.conversation = Box::pin(std::future::pending());
        }
        match &self.end {
            Some(Err(why)) => Err(why.clone()),
            _ => Ok(()),
        }
    }

    fn go_on(&mut self) -> Result<(), Refusal> {
        let waker = Waker::from(Arc::clone(&self.wakers));
        self.poll(&mut Context::from_waker(&waker))
    }
}

fn io_error(why: Refusal) -> io::Error {
    let kind = match why.reason {
        Reason::Cancelled => io::ErrorKind::BrokenPipe,
        _ => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, why)
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncRead for Scraped<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let running = self.get_mut().running()?;
        running.wakers.reading.register(cx.waker());
        let state = running.go_on();
        let before = buf.filled().len();
        // What came before a break was said all the same.
        ready!(Pin::new(&mut running.pipe).poll_read(cx, buf))?;
        if buf.filled().len() == before && buf.remaining() > 0 {
            state.map_err(io_error)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncWrite for Scraped<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let running = self.get_mut().running()?;
        running.wakers.writing.register(cx.waker());
        running.go_on().map_err(io_error)?;
        let written = ready!(Pin::new(&mut running.pipe).poll_write(cx, bytes))?;
        running.go_on().map_err(io_error)?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let running = self.get_mut().running()?;
        running.wakers.writing.register(cx.waker());
        Poll::Ready(running.go_on().map_err(io_error))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let running = self.get_mut().running()?;
        running.wakers.writing.register(cx.waker());
        ready!(Pin::new(&mut running.pipe).poll_shutdown(cx))?;
        Poll::Ready(running.go_on().map_err(io_error))
    }
}
