//! The web service that each edge offers.

use std::{io, net::SocketAddr};

use axum::{Router, extract::Path, response::IntoResponse, routing::get};
use bytes::Bytes;
use tokio::net::TcpListener;
use tunnel_daemon::shutdown::Tasks;
use tunnel_model::NodeName;

/// The largest body that `/bytes` makes.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Serves a greeting, and bodies of any size, on a port of loopback.
pub(super) async fn serve(name: &NodeName, tasks: &Tasks) -> io::Result<SocketAddr> {
    let greeting = greeting(name);
    let routes = Router::new().route("/", get(move || async move { greeting })).route(
        "/bytes/{count}",
        get(async |Path(count): Path<usize>| body(count).into_response()),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tasks.spawn_aside(async move { axum::serve(listener, routes).await });
    Ok(address)
}

/// What `/` answers.
pub(super) fn greeting(name: &NodeName) -> String {
    format!("Hello from {name}, through the tunnel.\n")
}

/// What `/bytes/COUNT` answers: the same for every node, and nothing that a proxy could make up.
pub(super) fn body(count: usize) -> Bytes {
    let mut state = 0x9e37_79b9_u32;
    let next = |_| {
        // xorshift32 (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..count.min(MAX_BYTES)).map(next).collect()
}
