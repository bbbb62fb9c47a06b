//! Accepts connections of edges until told to stop.

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tracing::debug;
use tunnel_carrier::quic::{self, Accepted, Purpose, Server};
use tunnel_daemon::shutdown::Tasks;
use tunnel_model::{Reason, Refusal};

use super::{Context, enrol, session};

/// Enrolments and renewals at once: each costs a signature and a write to disk.
const MAX_ENROLMENTS: usize = 64;
/// What edges are told to wait when the gateway stops; their own jitter comes on top.
const COME_BACK_AFTER: Duration = Duration::from_secs(1);

/// Serves edges until `tasks` is stopping; then lets their streams end, and cuts them when drain is over.
pub async fn serve(mut server: Server, context: Arc<Context>, tasks: Tasks) -> Result<(), Infallible> {
    let stopping = tasks.stopping();
    let enrolments = Arc::new(Semaphore::new(MAX_ENROLMENTS));
    while let Some(accepted) = stopping.run_until_cancelled(server.accept()).await.flatten() {
        if context.memory.is_short() {
            turn_away(&accepted, "the gateway is short of memory; try again later");
            continue;
        }
        let context = Arc::clone(&context);
        match accepted.purpose {
            Purpose::Tunnel => {
                tasks.spawn(session::run(context, accepted, tasks.cutting()));
            }
            Purpose::Enrol => match Arc::clone(&enrolments).try_acquire_owned() {
                Ok(place) => {
                    tasks.spawn(async move {
                        enrol::answer(&context, &accepted).await;
                        drop(place);
                    });
                }
                Err(_) => turn_away(&accepted, "too many edges join at once; try again"),
            },
        }
    }
    server.stop_accepting();
    context.registry.drain(COME_BACK_AFTER);
    tasks.cutting().cancelled().await;
    context
        .registry
        .cut_all(&Refusal::new(Reason::Draining, "the gateway has stopped"));
    server.wait_idle().await;
    Ok(())
}

fn turn_away(accepted: &Accepted, why: &'static str) {
    debug!(from = %accepted.connection.remote_address(), why, "turned away");
    let refusal = Refusal::new(Reason::Overloaded, why);
    quic::close(&accepted.connection, &refusal);
}
