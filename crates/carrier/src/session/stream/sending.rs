//! The direction that is written.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tunnel_model::Refusal;
use tunnel_proto::SendHalf;

use super::guard::{Guard, already_ended};

/// How much data goes out together with a stream's header, in bytes; a request's head is seldom longer.
const FIRST_DATA: usize = 8 * 1024;

#[derive(Debug)]
pub(super) struct Sending {
    pub(super) quic: quinn::SendStream,
    /// What goes before all data, and waits for the first of it: one packet carries both.
    pub(super) header: Bytes,
    /// `None` once the direction has ended.
    pub(super) half: Option<SendHalf>,
}

impl Sending {
    /// Writes the header, if it is still here.
    pub(super) fn poll_header(&mut self, guard: &Guard, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        while !self.header.is_empty() {
            let written = ready!(Pin::new(&mut self.quic).poll_write(cx, &self.header));
            self.header
                .advance(written.map_err(|error| guard.write_failed(&error))?);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the header with the first data, and says how much of that was written; none if there was no room for it.
    pub(super) fn poll_first(
        &mut self,
        guard: &Guard,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Refusal>> {
        let first = &bytes[..bytes.len().min(FIRST_DATA)];
        let both = [&self.header, first].concat();
        let written = ready!(Pin::new(&mut self.quic).poll_write(cx, &both));
        let written = written.map_err(|error| guard.write_failed(&error))?;
        let of_header = written.min(self.header.len());
        self.header.advance(of_header);
        Poll::Ready(Ok(written - of_header))
    }
}

/// The sending direction of a stream.
#[derive(Debug)]
pub(crate) struct Sender<'a> {
    pub(super) sending: &'a mut Sending,
    pub(super) guard: &'a Guard,
}

impl Sender<'_> {
    pub(crate) async fn write_chunk(&mut self, chunk: Bytes) -> Result<(), Refusal> {
        let Some(half) = &mut self.sending.half else {
            return Err(already_ended());
        };
        half.record(chunk.len());
        let mut chunks = [std::mem::take(&mut self.sending.header), chunk];
        let written = self.sending.quic.write_all_chunks(&mut chunks).await;
        written.map_err(|error| self.guard.write_failed(&error))
    }

    pub(crate) fn finish(&mut self) -> Result<(), Refusal> {
        let Some(half) = self.sending.half.take() else {
            return Ok(());
        };
        // In this order, the task that writes the announcement runs before the one that sends packets, and one packet
        // carries both.
        let finished = self.sending.quic.finish();
        self.guard.shared.with(|state| half.finish(&mut state.session));
        finished.map_err(|_| already_ended())
    }
}
