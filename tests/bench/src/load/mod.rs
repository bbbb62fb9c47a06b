//! The load: the servers behind every subject, and the clients in front of them.

mod http;
mod tcp;
mod udp;

use std::net::SocketAddr;

use base64::Engine;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) use http::{Latencies, connection_per_request, keep_alive, requests};
pub(crate) use tcp::download;
pub(crate) use udp::{Offer, Sink, packets};

/// Runs both servers until the process is killed, and says where they listen.
pub(crate) async fn backend() -> anyhow::Result<()> {
    let (tcp_server, http_server) = (tcp::Source::bind().await?, http::Server::bind().await?);
    println!("{} {}", tcp_server.address()?, http_server.address()?);
    tokio::try_join!(tcp_server.serve(), http_server.serve())?;
    Ok(())
}

/// Where the servers behind the subjects are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backends {
    /// Sends as fast as it can to whoever connects.
    pub(crate) tcp: SocketAddr,
    /// Answers each request with a small page.
    pub(crate) http: SocketAddr,
    /// Counts packets.
    pub(crate) udp: SocketAddr,
}

/// How clients get to the servers through a subject.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    /// A port for each server.
    Ports { tcp: SocketAddr, http: SocketAddr },
    /// An HTTP proxy that knows the servers by name.
    Proxy {
        proxy: SocketAddr,
        /// NAME:SECRET.
        credential: String,
        /// HOST:PORT of each server as the proxy knows them.
        tcp: String,
        http: String,
    },
}

impl Entry {
    /// A connection to the server that sends.
    pub(crate) async fn connect_tcp(&self) -> anyhow::Result<TcpStream> {
        match self {
            Self::Ports { tcp, .. } => connect(*tcp).await,
            Self::Proxy { proxy, tcp, .. } => self.connect_by_name(*proxy, tcp).await,
        }
    }

    async fn connect_by_name(&self, proxy: SocketAddr, target: &str) -> anyhow::Result<TcpStream> {
        let mut socket = connect(proxy).await?;
        let authorization = self.authorization();
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut head = Vec::with_capacity(512);
        // What the server sends behind it is thrown away: nobody counts its first bytes.
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            anyhow::ensure!(socket.read_buf(&mut head).await? > 0, "the answer was cut");
        }
        anyhow::ensure!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
        Ok(socket)
    }

    /// A connection to the server of pages that will stay.
    pub(crate) async fn connect_http(&self) -> anyhow::Result<TcpStream> {
        match self {
            Self::Ports { http, .. } => connect(*http).await,
            Self::Proxy { proxy, http, .. } => self.connect_by_name(*proxy, http).await,
        }
    }

    /// Where a connection goes that is made for one request.
    pub(crate) fn http_address(&self) -> SocketAddr {
        match self {
            Self::Ports { http, .. } => *http,
            Self::Proxy { proxy, .. } => *proxy,
        }
    }

    /// A request for the small page on a connection that stays; it leads to the server itself.
    pub(crate) fn kept_request() -> Vec<u8> {
        b"GET / HTTP/1.1\r\nHost: page\r\n\r\n".to_vec()
    }

    /// A request for the small page on a connection of its own, which a proxy is asked to pass on.
    pub(crate) fn single_request(&self) -> Vec<u8> {
        let (target, host) = match self {
            Self::Ports { http, .. } => ("/".to_owned(), http.to_string()),
            Self::Proxy { http, .. } => (format!("http://{http}/"), http.clone()),
        };
        let authorization = self.authorization();
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{authorization}\r\n").into_bytes()
    }

    pub(crate) fn authorization(&self) -> String {
        match self {
            Self::Ports { .. } => String::new(),
            Self::Proxy { credential, .. } => {
                let basic = base64::engine::general_purpose::STANDARD.encode(credential);
                format!("Proxy-Authorization: Basic {basic}\r\n")
            }
        }
    }
}

/// A connection that sends at once.
pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}
