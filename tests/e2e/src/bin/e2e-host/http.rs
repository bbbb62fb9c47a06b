//! A web server whose answers a test can predict.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

/// `/bytes/N` counts from 0 to this, over and over. It shares no factor with usual buffer sizes, so that bytes
/// in the wrong place show.
const LAST: u8 = 250;

/// How often it counts in one chunk.
const ROUNDS: usize = 256;

pub(crate) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/", get(async || "hello from the edge\n"))
        .route("/bytes/{count}", get(bytes))
        .route("/echo", post(async |request: Request| request.into_body()))
        .route("/headers", get(headers));
    loop {
        let (client, _) = listener.accept().await?;
        // Clients as plain as nc end their side with the request, and want the answer none the less.
        let connection = http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(client), TowerToHyperService::new(router.clone()));
        // One that breaks is its client's affair.
        tokio::spawn(async move { connection.await.ok() });
    }
}

async fn bytes(Path(count): Path<usize>) -> impl IntoResponse {
    let round: Vec<u8> = (0..=LAST).collect();
    let pattern = Bytes::from(round.repeat(ROUNDS));
    let chunks = stream::unfold(count, move |left| {
        let chunk = pattern.slice(..left.min(pattern.len()));
        let left = left - chunk.len();
        std::future::ready((!chunk.is_empty()).then_some((Ok::<_, Infallible>(chunk), left)))
    });
    ([(CONTENT_LENGTH, count.to_string())], Body::from_stream(chunks))
}

/// Each header with its values, in order.
async fn headers(headers: HeaderMap) -> Json<BTreeMap<String, Vec<String>>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in &headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        all.entry(name.to_string()).or_default().push(value);
    }
    Json(all)
}
