//! Accepts connections of edges until told to stop.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tracing::debug;
use tunnel_carrier::{
    quic::{self, Purpose},
    tls,
};
use tunnel_daemon::shutdown::Tasks;
use tunnel_model::{Reason, Refusal};

use super::{Arrived, Context, enrol, session};

/// Enrolments and renewals at once: each costs a signature and a write to disk.
const MAX_ENROLMENTS: usize = 64;
/// What edges are told to wait when the gateway stops; their own jitter comes on top.
const COME_BACK_AFTER: Duration = Duration::from_secs(1);

/// Where edges come in: one port number, by UDP and by TCP.
#[derive(Debug)]
pub struct Doors {
    quic: quic::Server,
    tls: tls::Server,
}

/// How often a port number is drawn that must be free for both, where any will do.
const DRAWS: usize = 16;

impl Doors {
    /// Binds the address, for both. Port 0 takes any number that both can have.
    pub fn bind(address: SocketAddr, config: &rustls::ServerConfig, reset_key: &[u8; 32]) -> io::Result<Self> {
        let mut draws = if address.port() == 0 { DRAWS } else { 1 };
        loop {
            draws -= 1;
            let quic = quic::Server::bind(address, config.clone(), reset_key, &quic::Limits::gateway())?;
            match tls::Server::bind(quic.local_addr()?, config.clone(), &tls::Limits::gateway()) {
                Ok(tls) => return Ok(Self { quic, tls }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && draws > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where they are.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    async fn accept(&mut self) -> Option<Arrived> {
        tokio::select! {
            accepted = self.quic.accept() => accepted.map(Arrived::from),
            accepted = self.tls.accept() => accepted.map(Arrived::from),
        }
    }
}

/// Serves edges until `tasks` is stopping; then lets their streams end, and cuts them when drain is over.
pub async fn serve(mut doors: Doors, context: Arc<Context>, tasks: Tasks) -> Result<(), Infallible> {
    let stopping = tasks.stopping();
    let enrolments = Arc::new(Semaphore::new(MAX_ENROLMENTS));
    while let Some(accepted) = stopping.run_until_cancelled(doors.accept()).await.flatten() {
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
    doors.quic.stop_accepting();
    doors.tls.stop_accepting();
    context.registry.drain(COME_BACK_AFTER);
    tasks.cutting().cancelled().await;
    context
        .registry
        .cut_all(&Refusal::new(Reason::Draining, "the gateway has stopped"));
    doors.quic.wait_idle().await;
    doors.tls.wait_idle().await;
    Ok(())
}

fn turn_away(accepted: &Arrived, why: &'static str) {
    debug!(from = %accepted.connection.remote_address(), why, "turned away");
    let refusal = Refusal::new(Reason::Overloaded, why);
    accepted.connection.close(&refusal);
}
