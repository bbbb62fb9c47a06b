//! The signals that mean "stop".

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Where the wish to stop comes from.
pub trait SignalSource: Send {
    /// Waits for the next signal and names it. Cancel safe.
    fn recv(&mut self) -> impl Future<Output = &'static str> + Send;
}

/// SIGTERM and SIGINT, which from now on end the process only through [`super::run`].
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over both signals. Call it early: a signal that comes before kills the process at once.
    ///
    /// # Errors
    /// Where the signal handler cannot be installed.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

impl SignalSource for Signals {
    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            Some(()) = self.terminate.recv() => "SIGTERM",
            Some(()) = self.interrupt.recv() => "SIGINT",
            else => std::future::pending().await,
        }
    }
}
