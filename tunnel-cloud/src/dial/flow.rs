//! A granted flow of packets: it counts what passes, keeps to the limits, and ends when it is cut.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tunnel_ingress::DialledFlow;
use tunnel_model::Refusal;

use super::{far::FarFlow, grants::Lease};

/// A flow and its place in the table of grants. What is over the limits is dropped, for packets that wait are worth
/// nothing to whoever waits for them.
#[derive(Debug)]
pub struct GrantedFlow {
    flow: FarFlow,
    sending: Pause,
    receiving: Pause,
    lease: Lease,
}

/// Until when a direction has used more than its share.
#[derive(Debug, Default)]
struct Pause(Option<Instant>);

impl Pause {
    fn begin(&mut self, wait: Option<Duration>) {
        self.0 = wait.map(|wait| Instant::now() + wait);
    }

    fn is_over(&self) -> bool {
        self.0.is_none_or(|until| until <= Instant::now())
    }
}

impl GrantedFlow {
    pub(super) fn new(flow: FarFlow, lease: Lease) -> Self {
        Self {
            flow,
            sending: Pause::default(),
            receiving: Pause::default(),
            lease,
        }
    }

    /// Waits until the target is there, as far as that can be known without its answer; [`Self::recv_many`] waits for
    /// this by itself. Cancelling loses nothing.
    pub async fn established(&mut self) -> Result<(), Refusal> {
        let established = tokio::select! {
            established = self.flow.established() => established,
            why = self.lease.wait_cut() => Err(why),
        };
        established.inspect_err(|refusal| self.lease.audited.refused(refusal.reason))
    }
}

impl DialledFlow for GrantedFlow {
    fn send(&mut self, packet: &[u8]) -> bool {
        let sent = self.sending.is_over() && self.flow.send(packet);
        if sent {
            let wait = self.lease.sent(packet.len());
            self.sending.begin(wait);
        }
        sent
    }

    async fn recv_many(&mut self, packets: &mut Vec<Bytes>) -> Result<(), Refusal> {
        let before = packets.len();
        let arrived = tokio::select! {
            arrived = self.flow.recv_many(packets) => arrived,
            why = self.lease.wait_cut() => Err(why),
        };
        arrived.inspect_err(|refusal| self.lease.audited.refused(refusal.reason))?;
        let mut at = before;
        while let Some(packet) = packets.get(at) {
            if self.receiving.is_over() {
                let wait = self.lease.received(packet.len());
                self.receiving.begin(wait);
                at += 1;
            } else {
                packets.truncate(at);
            }
        }
        Ok(())
    }

    fn end(self, why: &Refusal) {
        self.flow.reset(why);
    }
}
