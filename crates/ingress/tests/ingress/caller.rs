//! A client that says exactly what a test wants it to.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Somebody's end of a connection, and what was read ahead on it. Targets use it for theirs too.
pub(crate) struct Caller {
    pub(crate) io: TcpStream,
    buf: Vec<u8>,
}

/// A response, or a request, with a body of stated length.
#[derive(Debug)]
pub(crate) struct Message {
    /// Up to and with the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let value = |line: &'_ str| {
            let (field, _) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then_some(())
        };
        self.head
            .lines()
            .find(|line| value(line).is_some())
            .and_then(|line| line.split_once(": "))
            .map(|(_, v)| v)
    }
}

impl Caller {
    pub(crate) fn new(io: TcpStream) -> Self {
        Self { io, buf: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.io.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a request with a credential and one more field line, or none.
    pub(crate) async fn request(&mut self, method: &str, url: &str, field: &str) {
        let host = url.strip_prefix("http://").unwrap_or(url);
        let host = host.split('/').next().unwrap();
        let field = if field.is_empty() {
            String::new()
        } else {
            format!("{field}\r\n")
        };
        let credential = crate::proxy::ALICE;
        self.send(format!(
            "{method} {url} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: {credential}\r\n{field}\r\n"
        ))
        .await;
    }

    /// Opens a tunnel.
    pub(crate) async fn connect(&mut self, to: &str) {
        self.request("CONNECT", to, "").await;
        assert_eq!(self.head().await.unwrap().status(), 200);
    }

    /// Asks for something in whatever spelling, as alice, and returns the status of the answer.
    pub(crate) async fn ask_http(&mut self, method: &str, target: &str) -> u16 {
        self.request(method, target, "").await;
        // A refusal may come before the rest of what was sent is read.
        self.head().await.unwrap().status()
    }

    /// Asks by SOCKS5 for a spelling of a host and port, as alice, and returns the code of the reply; nothing where SOCKS5
    /// cannot say it.
    pub(crate) async fn ask_socks(&mut self, spelling: &str) -> Option<u8> {
        let (host, port) = spelling.rsplit_once(':')?;
        let (len, port) = (u8::try_from(host.len()).ok()?, port.parse::<u16>().ok()?);
        let request = [&[3, len], host.as_bytes(), &port.to_be_bytes()].concat();
        Some(self.socks(&request).await)
    }

    /// Connects by SOCKS5 as alice to an address, written with its type and its port; returns the code of the reply.
    pub(crate) async fn socks(&mut self, address: &[u8]) -> u8 {
        greet(self).await;
        self.send([b"\x05\x01\x00", address].concat()).await;
        reply(self).await
    }

    /// The next head alone.
    pub(crate) async fn head(&mut self) -> io::Result<Message> {
        loop {
            if let Some(end) = self.buf.windows(4).position(|w| w == b"\r\n\r\n") {
                let rest = self.buf.split_off(end + 4);
                let head = String::from_utf8(std::mem::replace(&mut self.buf, rest)).unwrap();
                return Ok(Message { head, body: Vec::new() });
            }
            self.fill().await?;
        }
    }

    /// The next head, and as much body as it states.
    pub(crate) async fn message(&mut self) -> io::Result<Message> {
        let mut message = self.head().await?;
        let len = message.field("content-length").map_or(0, |v| v.parse().unwrap());
        message.body = self.exactly(len).await?;
        Ok(message)
    }

    pub(crate) async fn exactly(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.buf.len() < len {
            self.fill().await?;
        }
        let rest = self.buf.split_off(len);
        Ok(std::mem::replace(&mut self.buf, rest))
    }

    /// Everything up to an orderly end; an error if there is none.
    pub(crate) async fn until_end(&mut self) -> io::Result<Vec<u8>> {
        in_time(self.io.read_to_end(&mut self.buf)).await?;
        Ok(std::mem::take(&mut self.buf))
    }

    /// Waits for the connection to be reset, however much comes before.
    pub(crate) async fn assert_reset(&mut self) {
        let end = self.until_end().await;
        let error = end.expect_err("an orderly end instead of a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    /// Ends this direction only.
    pub(crate) async fn half_close(&mut self) {
        self.io.shutdown().await.unwrap();
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        self.io.set_zero_linger().unwrap();
    }

    async fn fill(&mut self) -> io::Result<()> {
        match in_time(self.io.read_buf(&mut self.buf)).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// The handshake up to the request, as alice.
pub(crate) const GREETING: &[u8] = b"\x05\x02\x00\x02\x01\x05alice\x06secret";

/// Admits a SOCKS5 caller as alice.
pub(crate) async fn greet(caller: &mut Caller) {
    caller.send(GREETING).await;
    assert_eq!(caller.exactly(4).await.unwrap(), [5, 2, 1, 0]);
}

/// The code of the reply to a SOCKS5 request.
pub(crate) async fn reply(caller: &mut Caller) -> u8 {
    let reply = caller.exactly(10).await.unwrap();
    assert_eq!((reply[0], &reply[2..]), (5, &[0, 1, 0, 0, 0, 0, 0, 0][..]));
    reply[1]
}

/// A wait that would otherwise hang a failing test.
pub(crate) async fn in_time<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("what the test waits for does not happen")
}
