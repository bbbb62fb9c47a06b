//! One flow of packets from the gateway: judged, given a socket of its own, relayed until it is idle.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::Interest,
    net::UdpSocket,
    time::{Instant, sleep_until},
};
use tunnel_carrier::{Flow, Relayed};
use tunnel_daemon::udp;
use tunnel_model::{Reason, Refusal};
use tunnel_proto::MAX_PACKET;

/// Packets that are taken from the socket before the flow has its turn.
const BATCH: usize = 64;

/// Moves packets both ways until the flow is over, nothing has passed for a while, or `cut` says why it is to break.
pub(super) async fn relay(
    socket: &UdpSocket,
    mut flow: Flow,
    idle: Duration,
    cut: impl Future<Output = Refusal>,
) -> Relayed {
    let mut cut = std::pin::pin!(cut);
    let (mut sent, mut received) = (0, 0);
    let mut packets: Vec<Bytes> = Vec::with_capacity(2 * Flow::BATCH);
    let mut buffer = BytesMut::zeroed(MAX_PACKET);
    let mut due = Instant::now() + idle;
    let refusal = loop {
        let moved = tokio::select! {
            over = flow.recv_many(&mut packets) => match over {
                Ok(()) => to_target(socket, &mut packets, &mut received).await,
                Err(refusal) => Err(refusal),
            },
            // A refusal by the target's machine makes the socket fail and not readable.
            _ = socket.ready(Interest::READABLE | Interest::ERROR) => {
                from_target(socket, &flow, &mut buffer, &mut sent).and_then(|()| heard_refusal(socket))
            }
            () = sleep_until(due) => Err(Refusal::new(
                Reason::IdleTimeout,
                format!("no packet passed for {} s", idle.as_secs()),
            )),
            why = &mut cut => Err(why),
        };
        match moved {
            Ok(()) => due = Instant::now() + idle,
            Err(refusal) => break refusal,
        }
    };
    // That nothing more came is how flows end.
    let end = if refusal.reason == Reason::IdleTimeout {
        Ok(())
    } else {
        Err(refusal.clone())
    };
    flow.reset(&refusal);
    Relayed { sent, received, end }
}

/// A packet that the socket does not take is lost, as packets may be; one that the target's machine refuses is the end.
async fn to_target(socket: &UdpSocket, packets: &mut Vec<Bytes>, moved: &mut u64) -> Result<(), Refusal> {
    for packet in packets.drain(..) {
        match socket.send(&packet).await {
            Ok(length) => *moved += length as u64,
            Err(error) => unless_refused(&error)?,
        }
    }
    Ok(())
}

fn from_target(socket: &UdpSocket, flow: &Flow, buffer: &mut [u8], moved: &mut u64) -> Result<(), Refusal> {
    for _ in 0..BATCH {
        match socket.try_recv(buffer) {
            Ok(length) => {
                *moved += length as u64;
                // Where there is no room it is lost, as packets may be.
                flow.send(&buffer[..length]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => unless_refused(&error)?,
        }
    }
    Ok(())
}

fn heard_refusal(socket: &UdpSocket) -> Result<(), Refusal> {
    udp::heard_error(socket).map_or(Ok(()), |error| unless_refused(&error))
}

/// Other errors are of one packet, such as one that was too long for the way.
fn unless_refused(error: &io::Error) -> Result<(), Refusal> {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        let message = "nothing listens at the target; start it, or correct the target";
        return Err(Refusal::new(Reason::TargetRefused, message));
    }
    Ok(())
}
