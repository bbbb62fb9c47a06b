//! `ping`: round trips through the tunnel.

use hyper::Method;
use serde::Serialize;
use tunnel_daemon::{
    error::CliError,
    output::{self, OutputFormat},
};

use super::gateway::{Gateway, segment};
use crate::admin::api::Pong;

#[derive(Serialize)]
struct Pongs {
    pongs: Vec<Pong>,
}

pub(super) async fn run(gateway: &Gateway, node: &str, count: u32, format: OutputFormat) -> Result<(), CliError> {
    let path = format!("/v1/nodes/{}/ping", segment(node));
    let mut pongs = Vec::new();
    for _ in 0..count {
        let pong: Pong = gateway.request(Method::POST, &path, None::<&()>).await?;
        match format {
            OutputFormat::Table => output::data(&format!("{}: {:.1} ms", pong.node, pong.round_trip_ms))?,
            OutputFormat::Json => pongs.push(pong),
        }
    }
    match format {
        OutputFormat::Table => Ok(()),
        OutputFormat::Json => output::data(&output::to_json(&Pongs { pongs })?),
    }
}
