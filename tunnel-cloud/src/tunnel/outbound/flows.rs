//! A flow that an edge has opened, joined with the one to its target.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tunnel_carrier::Flow;
use tunnel_ingress::DialledFlow;
use tunnel_model::{Reason, Refusal};

/// Moves packets both ways until either flow is over or nothing has passed for a while; ends both, and says why. A packet
/// that finds no room is lost, as packets may be.
pub(super) async fn join(mut near: Flow, mut far: impl DialledFlow, idle: Duration) -> Refusal {
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let mut due = Instant::now() + idle;
    let why = loop {
        let arrived = tokio::select! {
            arrived = near.recv_many(&mut up) => arrived,
            arrived = far.recv_many(&mut down) => arrived,
            () = sleep_until(due) => {
                let message = format!("no packet passed for {} s", idle.as_secs());
                Err(Refusal::new(Reason::IdleTimeout, message))
            }
        };
        if let Err(refusal) = arrived {
            break refusal;
        }
        for packet in up.drain(..) {
            far.send(&packet);
        }
        for packet in down.drain(..) {
            near.send(&packet);
        }
        due = Instant::now() + idle;
    };
    far.end(&why);
    near.reset(&why);
    why
}
