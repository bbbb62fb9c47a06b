//! The load: the servers behind every subject, and the clients in front of them.

mod http;
mod tcp;

use std::net::SocketAddr;

use base64::Engine;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) use http::{connection_per_request, keep_alive, requests};
pub(crate) use tcp::download;

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
            Self::Proxy { proxy, tcp, .. } => {
                let mut socket = connect(*proxy).await?;
                let authorization = self.authorization();
                let request = format!("CONNECT {tcp} HTTP/1.1\r\nHost: {tcp}\r\n{authorization}\r\n");
                socket.write_all(request.as_bytes()).await?;
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await?);
                }
                anyhow::ensure!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
                Ok(socket)
            }
        }
    }

    /// Where requests go.
    pub(crate) fn http_address(&self) -> SocketAddr {
        match self {
            Self::Ports { http, .. } => *http,
            Self::Proxy { proxy, .. } => *proxy,
        }
    }

    /// A request for the small page.
    pub(crate) fn http_request(&self, keep_alive: bool) -> Vec<u8> {
        let connection = if keep_alive { "" } else { "Connection: close\r\n" };
        let (target, host) = match self {
            Self::Ports { http, .. } => ("/".to_owned(), http.to_string()),
            Self::Proxy { http, .. } => (format!("http://{http}/"), http.clone()),
        };
        let authorization = self.authorization();
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{connection}{authorization}\r\n").into_bytes()
    }

    fn authorization(&self) -> String {
        match self {
            Self::Ports { .. } => String::new(),
            Self::Proxy { credential, .. } => {
                let basic = base64::engine::general_purpose::STANDARD.encode(credential);
                format!("Proxy-Authorization: Basic {basic}\r\n")
            }
        }
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}
