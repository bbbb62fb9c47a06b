//! Answers that go on: lines of JSON, for as long as somebody reads.

use std::pin::Pin;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use serde::de::DeserializeOwned;

use super::client::{Connection, UnixClient};
use crate::error::CliError;

/// The longest line that is read, in bytes.
const MAX_LINE: usize = 1 << 20;

/// The longest silence. The daemon sends an empty line every second.
const SILENCE: Duration = Duration::from_secs(30);

/// An answer that goes on. Dropping it tells the daemon that nobody reads any more.
#[derive(Debug)]
pub struct Lines {
    client: UnixClient,
    body: Incoming,
    /// Moves the bytes that the body waits for.
    connection: Pin<Box<Connection>>,
    moving: bool,
    buf: Vec<u8>,
}

impl Lines {
    pub(super) fn new(client: UnixClient, body: Incoming, connection: Pin<Box<Connection>>) -> Self {
        Self {
            client,
            body,
            connection,
            moving: true,
            buf: Vec::new(),
        }
    }

    /// The next line; nothing once the answer has ended. Empty lines are signs of life and passed over. Cancel safe.
    ///
    /// # Errors
    /// `admin-protocol` where the answer breaks off or is not what it should be, `admin-timeout` where the daemon falls
    /// silent.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CliError> {
        loop {
            while let Some(end) = self.buf.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buf.drain(..=end).collect();
                if let text @ [_, ..] = line.trim_ascii() {
                    return match serde_json::from_slice(text) {
                        Ok(read) => Ok(Some(read)),
                        Err(error) => Err(self.client.protocol(&error)),
                    };
                }
            }
            if self.buf.len() > MAX_LINE {
                return Err(self.client.protocol(&"a line without an end"));
            }
            let frame = match tokio::time::timeout(SILENCE, self.frame()).await {
                Ok(frame) => frame,
                Err(_) => return Err(self.client.silent(SILENCE)),
            };
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => self.buf.extend(frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(self.client.protocol(&error)),
            }
        }
    }

    async fn frame(&mut self) -> Option<Result<hyper::body::Frame<Bytes>, hyper::Error>> {
        loop {
            tokio::select! {
                biased;
                frame = self.body.frame() => return frame,
                // Its own error, if any, reaches the body too.
                _ = &mut self.connection, if self.moving => self.moving = false,
            }
        }
    }
}
