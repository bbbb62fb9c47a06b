//! A gateway's end and an edge's end, a target behind the one and a caller before the other.

use std::{
    fmt::Write as _,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    sync::mpsc,
    task::JoinHandle,
};
use tunnel_model::Refusal;

use crate::{
    Moved,
    scrape::{Encoders, Room, Scraped, Scrapes, Served, serve},
};

pub(super) const GET: &str = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";

/// Requests that wait for an answer, and answers for a request.
const QUEUE: usize = 16;

const ROOM: Room = Room {
    of_one: 16 << 20,
    in_all: 64 << 20,
};

/// What a target says.
#[derive(Debug, Clone)]
pub(super) struct Page {
    head: String,
    said: Vec<u8>,
    pub(super) body: Vec<u8>,
    is_last: bool,
}

impl Page {
    pub(super) fn new(fields: &str, body: Vec<u8>) -> Self {
        Self {
            head: format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", body.len()),
            said: body.clone(),
            body,
            is_last: false,
        }
    }

    pub(super) fn raw(text: &str) -> Self {
        Self {
            head: String::new(),
            said: text.as_bytes().to_vec(),
            body: Vec::new(),
            is_last: false,
        }
    }

    /// Nothing but the end.
    pub(super) fn end() -> Self {
        Self::raw("").last()
    }

    pub(super) fn last(mut self) -> Self {
        self.is_last = true;
        self
    }

    pub(super) fn chunked(mut self, size: usize) -> Self {
        let length = format!("Content-Length: {}\r\n", self.body.len());
        self.head = self.head.replace(&length, "Transfer-Encoding: chunked\r\n");
        self.said.clear();
        for chunk in self.body.chunks(size) {
            self.said.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            self.said.extend_from_slice(chunk);
            self.said.extend_from_slice(b"\r\n");
        }
        self.said.extend_from_slice(b"0\r\n\r\n");
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        [self.head.as_bytes(), &self.said].concat()
    }
}

pub(super) fn plain(body: &[u8]) -> Page {
    Page::new("", body.to_vec())
}

/// A page of metrics some of which have moved since the one before.
pub(super) fn page(n: usize) -> Page {
    let mut body = String::new();
    for line in 0..400 {
        if line % 20 == 0 {
            let _ = writeln!(body, "# HELP node_metric_{line} Some text that never changes.");
        }
        let value = if line % 10 == 0 { 1_000 * line + 37 * n } else { line };
        let _ = writeln!(body, "node_metric_{line}{{device=\"eth{line}\"}} {value}");
    }
    let fields = "Content-Type: text/plain; version=0.0.4\r\nDate: Thu, 26 Nov 2026 15:01:22 GMT\r\n";
    Page::new(fields, body.into_bytes())
}

/// A gateway and an edge.
pub(super) struct Pair {
    scrapes: Arc<Scrapes>,
    encoders: Arc<Encoders>,
    wire: Arc<AtomicU64>,
    served: Arc<Mutex<Vec<Served>>>,
    resets: Arc<Mutex<Vec<Refusal>>>,
}

impl Pair {
    pub(super) fn new() -> Self {
        let served = Arc::default();
        Self {
            scrapes: scrapes(&served),
            encoders: Arc::new(Encoders::new(ROOM)),
            wire: Arc::default(),
            served,
            resets: Arc::default(),
        }
    }

    pub(super) fn restart_edge(&mut self) {
        self.encoders = Arc::new(Encoders::new(ROOM));
    }

    pub(super) fn restart_gateway(&mut self) {
        self.scrapes = scrapes(&self.served);
    }

    /// Bytes on the wire so far, both ways.
    pub(super) fn wire(&self) -> u64 {
        self.wire.load(Ordering::SeqCst)
    }

    pub(super) fn served(&self) -> Vec<Served> {
        self.served.lock().unwrap().clone()
    }

    pub(super) fn resets(&self) -> Vec<Refusal> {
        self.resets.lock().unwrap().clone()
    }

    /// A caller's stream, and a target of its own that answers its requests.
    pub(super) fn caller(&self, answer: impl FnMut(usize, &[u8]) -> Page + Send + 'static) -> Caller {
        self.caller_of("edge1", "service:node", answer)
    }

    pub(super) fn caller_of(
        &self,
        node: &str,
        target: &str,
        mut answer: impl FnMut(usize, &[u8]) -> Page + Send + 'static,
    ) -> Caller {
        let (heads, mut asked) = mpsc::channel::<Vec<u8>>(QUEUE);
        let (pages, answers) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let mut n = 0;
            while let Some(head) = asked.recv().await {
                let page = answer(n, &head);
                n += 1;
                let _ = pages.send(page).await;
            }
        });
        self.connect(node, target, heads, answers)
    }

    /// A caller whose target answers when it is told to.
    pub(super) fn held_caller(&self) -> (Caller, Hold) {
        let (heads, asked) = mpsc::channel(QUEUE);
        let (pages, answers) = mpsc::channel(QUEUE);
        let hold = Hold {
            asked: asked.into(),
            pages,
        };
        (self.connect("edge1", "service:node", heads, answers), hold)
    }

    fn connect(
        &self,
        node: &str,
        target: &str,
        heads: mpsc::Sender<Vec<u8>>,
        mut answers: mpsc::Receiver<Page>,
    ) -> Caller {
        let (near, far) = duplex(8 << 20);
        let (mut socket, mut server) = duplex(8 << 20);
        tokio::spawn(async move {
            while let Some(head) = read_head(&mut server).await {
                let _ = heads.send(head).await;
                let Some(page) = answers.recv().await else { return };
                if server.write_all(&page.bytes()).await.is_err() {
                    return;
                }
                if page.is_last {
                    let _ = server.shutdown().await;
                }
            }
        });
        let (encoders, wire) = (Arc::clone(&self.encoders), Arc::clone(&self.wire));
        let name = target.to_owned();
        let edge = tokio::spawn(async move {
            let mut far = Wire {
                pipe: far,
                bytes: wire,
                resets: Arc::default(),
            };
            serve(&mut socket, &mut far, &encoders, &name, &mut Moved::default()).await
        });
        Caller {
            stream: self.scraped(near, node, target),
            edge,
        }
    }

    /// The gateway's end of a stream whose other end is in the test's hands.
    pub(super) fn scraped(&self, near: DuplexStream, node: &str, target: &str) -> Scraped<Wire> {
        let near = Wire {
            pipe: near,
            bytes: Arc::default(),
            resets: Arc::clone(&self.resets),
        };
        Scraped::new(
            near,
            Arc::clone(&self.scrapes),
            node.to_owned(),
            target.to_owned(),
            Wire::reset,
        )
    }
}

fn scrapes(served: &Arc<Mutex<Vec<Served>>>) -> Arc<Scrapes> {
    let served = Arc::clone(served);
    Arc::new(Scrapes::new(ROOM, move |how| served.lock().unwrap().push(how)))
}

/// A target in the test's hands.
pub(super) struct Hold {
    asked: tokio::sync::Mutex<mpsc::Receiver<Vec<u8>>>,
    pages: mpsc::Sender<Page>,
}

impl Hold {
    pub(super) async fn asked(&self) {
        self.asked.lock().await.recv().await.unwrap();
    }

    pub(super) fn answer(&self, page: &Page) {
        self.pages.try_send(page.clone()).unwrap();
    }
}

/// Somebody with a stream.
pub(super) struct Caller {
    pub(super) stream: Scraped<Wire>,
    pub(super) edge: JoinHandle<Result<(), Refusal>>,
}

impl Caller {
    pub(super) async fn send(&mut self, head: &str) {
        self.stream.write_all(head.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Has the stream see to what there is.
    pub(super) async fn poll(&mut self) {
        let mut byte = [0];
        let read = async { self.stream.read(&mut byte).await };
        tokio::select! {
            biased;
            _ = read => panic!("there is nothing to read yet"),
            () = async {} => {}
        }
    }

    /// An answer with its length.
    pub(super) async fn receive(&mut self) -> (Vec<u8>, Vec<u8>) {
        let head = read_head(&mut self.stream).await.unwrap();
        let text = String::from_utf8(head.clone()).unwrap();
        let length = text.split("Content-Length: ").nth(1).unwrap();
        let length = length.split("\r\n").next().unwrap().parse().unwrap();
        let body = self.exactly(length).await;
        (head, body)
    }

    pub(super) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    pub(super) async fn exchange(&mut self, head: &str) -> (Vec<u8>, Vec<u8>) {
        self.send(head).await;
        self.receive().await
    }

    pub(super) async fn get(&mut self, head: &str) -> Vec<u8> {
        self.exchange(head).await.1
    }

    /// What comes up to the end.
    pub(super) async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await?;
        Ok(rest)
    }
}

async fn read_head(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(from.read_u8().await.ok()?);
    }
    Some(head)
}

/// An end of a stream that counts.
pub(super) struct Wire {
    pipe: DuplexStream,
    bytes: Arc<AtomicU64>,
    resets: Arc<Mutex<Vec<Refusal>>>,
}

impl Wire {
    fn reset(self, why: &Refusal) {
        self.resets.lock().unwrap().push(why.clone());
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.pipe).poll_read(cx, buf);
        self.bytes
            .fetch_add((buf.filled().len() - before) as u64, Ordering::SeqCst);
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.pipe).poll_write(cx, bytes);
        if let Poll::Ready(Ok(n)) = polled {
            self.bytes.fetch_add(n as u64, Ordering::SeqCst);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}
