//! One question, one answer, on one stream: how enrolment and renewal talk.
//!
//! Each is a big-endian 32-bit length and that many bytes, because the end of a stream proves nothing.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tunnel_model::{Reason, Refusal};

use crate::quic::refusal_of;

/// The longest question or answer, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// How long the other side may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Asks, and waits for the answer. The gateway's refusal comes as the reason for which it closed the connection.
pub async fn ask(connection: &quinn::Connection, question: &[u8]) -> Result<Vec<u8>, Refusal> {
    let exchange = async {
        let (mut send, mut recv) = connection.open_bi().await.map_err(|e| refusal_of(&e))?;
        write_whole(&mut send, question).await?;
        read_whole(connection, &mut recv).await
    };
    timeout(DEADLINE, exchange).await.unwrap_or_else(|_| Err(too_slow()))
}

/// Waits for the question. The answer goes to the [`Answering`].
pub async fn question(connection: &quinn::Connection) -> Result<(Vec<u8>, Answering), Refusal> {
    let exchange = async {
        let (send, mut recv) = connection.accept_bi().await.map_err(|e| refusal_of(&e))?;
        let question = read_whole(connection, &mut recv).await?;
        Ok((question, Answering(send)))
    };
    timeout(DEADLINE, exchange).await.unwrap_or_else(|_| Err(too_slow()))
}

/// The way back of one question.
#[derive(Debug)]
pub struct Answering(quinn::SendStream);

impl Answering {
    /// Sends the answer and waits until the peer has it.
    pub async fn answer(mut self, answer: &[u8]) -> Result<(), Refusal> {
        write_whole(&mut self.0, answer).await?;
        // Whatever becomes of the stream now, the peer has read it or is gone.
        let _ = timeout(DEADLINE, self.0.stopped()).await;
        Ok(())
    }
}

async fn write_whole(send: &mut quinn::SendStream, message: &[u8]) -> Result<(), Refusal> {
    let length = u32::try_from(message.len())
        .ok()
        .filter(|_| message.len() <= MAX_MESSAGE)
        .ok_or_else(|| Refusal::new(Reason::Internal, "the message is too long to be sent"))?;
    let framed = [&length.to_be_bytes(), message].concat();
    send.write_chunk(Bytes::from(framed))
        .await
        .map_err(|e| Refusal::new(Reason::CarrierLost, e.to_string()))?;
    // It is open, so it can be finished.
    let _ = send.finish();
    Ok(())
}

async fn read_whole(connection: &quinn::Connection, recv: &mut quinn::RecvStream) -> Result<Vec<u8>, Refusal> {
    let broken = |error: quinn::ReadExactError| match connection.close_reason() {
        Some(reason) => refusal_of(&reason),
        None => Refusal::new(Reason::Protocol, error.to_string()),
    };
    let mut length = [0; 4];
    recv.read_exact(&mut length).await.map_err(broken)?;
    let length = usize::try_from(u32::from_be_bytes(length))
        .ok()
        .filter(|&length| length <= MAX_MESSAGE)
        .ok_or_else(|| Refusal::new(Reason::Protocol, "the message is longer than allowed"))?;
    let mut message = vec![0; length];
    recv.read_exact(&mut message).await.map_err(broken)?;
    Ok(message)
}

fn too_slow() -> Refusal {
    Refusal::new(Reason::IdleTimeout, "the other side took too long")
}
