//! What a caller wants to reach.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::caller::{Caller, in_time};

/// A listener, whose connections a test plays itself.
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    listener: TcpListener,
}

impl Target {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            addr: listener.local_addr().unwrap(),
            listener,
        }
    }

    pub(crate) async fn accept(&self) -> Caller {
        Caller::new(in_time(self.listener.accept()).await.unwrap().0)
    }

    /// Answers every request on every connection with `ok` and the request's own head, until the test ends.
    pub(crate) fn answer_all(self) {
        tokio::spawn(async move {
            loop {
                let mut end = self.accept().await;
                tokio::spawn(async move {
                    while let Ok(request) = end.message().await {
                        let head = request.head.len() + request.body.len();
                        end.send(format!(
                            "HTTP/1.1 200 OK\r\nContent-Length: {head}\r\n\r\n{}",
                            request.head
                        ))
                        .await;
                        end.send(request.body).await;
                    }
                });
            }
        });
    }
}
