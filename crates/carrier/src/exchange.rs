//! One question, one answer, on one stream: how enrolment and renewal talk.
//!
//! Each is a big-endian 32-bit length and that many bytes, because the end of a stream proves nothing.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tunnel_model::{Reason, Refusal};

use crate::link::{Connection, RecvStream, SendStream, StreamError};

/// The longest question or answer, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// How long the other side may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Asks, and waits for the answer. The gateway's refusal comes as the reason for which it closed the connection.
pub async fn ask(connection: &Connection, question: &[u8]) -> Result<Vec<u8>, Refusal> {
    let exchange = async {
        let (mut send, mut recv) = connection.open_bi().await?;
        write_whole(connection, &mut send, question).await?;
        read_whole(connection, &mut recv).await
    };
    timeout(DEADLINE, exchange).await.unwrap_or_else(|_| Err(too_slow()))
}

/// Waits for the question. The answer goes to the [`Answering`].
pub async fn question(connection: &Connection) -> Result<(Vec<u8>, Answering), Refusal> {
    let exchange = async {
        let (send, mut recv) = connection.accept_bi().await?;
        let question = read_whole(connection, &mut recv).await?;
        Ok((question, Answering(connection.clone(), send)))
    };
    timeout(DEADLINE, exchange).await.unwrap_or_else(|_| Err(too_slow()))
}

/// The way back of one question.
#[derive(Debug)]
pub struct Answering(Connection, SendStream);

impl Answering {
    /// Sends the answer and waits until the peer has it.
    pub async fn answer(mut self, answer: &[u8]) -> Result<(), Refusal> {
        write_whole(&self.0, &mut self.1, answer).await?;
        // Whatever becomes of the stream now, the peer has read it or is gone.
        let _ = timeout(DEADLINE, self.1.stopped()).await;
        Ok(())
    }
}

async fn write_whole(connection: &Connection, send: &mut SendStream, message: &[u8]) -> Result<(), Refusal> {
    let length = u32::try_from(message.len())
        .ok()
        .filter(|_| message.len() <= MAX_MESSAGE)
        .ok_or_else(|| Refusal::new(Reason::Internal, "the message is too long to be sent"))?;
    let framed = [&length.to_be_bytes(), message].concat();
    let written = send.write_all_chunks(&mut [Bytes::from(framed)]).await;
    written.map_err(|error| broken(connection, error))?;
    send.finish();
    Ok(())
}

async fn read_whole(connection: &Connection, recv: &mut RecvStream) -> Result<Vec<u8>, Refusal> {
    let mut read = Vec::new();
    let mut wanted = 4;
    while read.len() < wanted {
        match recv.read_chunk(wanted - read.len()).await {
            Ok(Some(chunk)) => read.extend_from_slice(&chunk),
            Ok(None) => return Err(Refusal::new(Reason::Protocol, "the message ended before its end")),
            Err(error) => return Err(broken(connection, error)),
        }
        if let (Some(length), 4) = (read.first_chunk::<4>(), read.len()) {
            let length = usize::try_from(u32::from_be_bytes(*length)).ok();
            let allowed = length.filter(|&length| length <= MAX_MESSAGE);
            wanted += allowed.ok_or_else(|| Refusal::new(Reason::Protocol, "the message is longer than allowed"))?;
        }
    }
    Ok(read.split_off(4))
}

fn broken(connection: &Connection, error: StreamError) -> Refusal {
    match (connection.close_reason(), error) {
        (Some(reason), _) => reason,
        (None, StreamError::Broken(refusal)) => refusal,
        (None, StreamError::Lost) => Refusal::new(Reason::CarrierLost, "the connection was lost"),
    }
}

fn too_slow() -> Refusal {
    Refusal::new(Reason::IdleTimeout, "the other side took too long")
}
