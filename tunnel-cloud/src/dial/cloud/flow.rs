//! Packets to and from a service of the cloud side.

use std::io;

use bytes::Bytes;
use tokio::{io::Interest, net::UdpSocket};
use tunnel_daemon::udp;
use tunnel_model::{HostPort, Refusal};

/// Packets that are taken from the socket at once.
const BATCH: usize = 64;

/// A socket of its own for the packets of one flow. Whoever holds it decides when it was idle for too long.
#[derive(Debug)]
pub(in crate::dial) struct CloudFlow {
    socket: UdpSocket,
    target: HostPort,
}

impl CloudFlow {
    pub(super) fn new(socket: UdpSocket, target: HostPort) -> Self {
        Self { socket, target }
    }

    /// Sends a packet, or drops it where there is no room; says whether it is on its way.
    pub(in crate::dial) fn send(&self, packet: &[u8]) -> bool {
        self.socket.try_send(packet).is_ok()
    }

    /// Waits for packets and adds them, a bounded number at once. Cancelling loses nothing.
    ///
    /// # Errors
    /// The service's machine says that nothing listens there.
    pub(in crate::dial) async fn recv_many(&self, packets: &mut Vec<Bytes>) -> Result<(), Refusal> {
        let before = packets.len();
        while packets.len() == before {
            // A refusal by the service's machine makes the socket fail and not readable.
            let ready = self.socket.ready(Interest::READABLE | Interest::ERROR).await;
            ready.map_err(|error| super::unreachable(&self.target, &error))?;
            self.take(packets)?;
            udp::heard_error(&self.socket).map_or(Ok(()), |error| self.unless_refused(&error))?;
        }
        Ok(())
    }

    fn take(&self, packets: &mut Vec<Bytes>) -> Result<(), Refusal> {
        // Only while packets are there: a flow is idle most of its life.
        let mut buffer = Vec::with_capacity(udp::MAX_PACKET);
        for _ in 0..BATCH {
            match self.socket.try_recv_buf(&mut buffer) {
                Ok(_) => {
                    packets.push(Bytes::copy_from_slice(&buffer));
                    buffer.clear();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => self.unless_refused(&error)?,
            }
        }
        Ok(())
    }

    /// Other errors are of one packet, such as one that was too long for the way.
    fn unless_refused(&self, error: &io::Error) -> Result<(), Refusal> {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            return Err(super::refused(&self.target, &self.target));
        }
        Ok(())
    }
}
