//! `lab`: a gateway and a few edges with demo services in one process, over simulated thin links. Needs no root.
//!
//! Everything is the real thing but the link: the gateway is [`crate::gateway`], each edge is an agent that joined with a
//! token, and their packets cross loopback through a relay that delays, thins and loses them.

mod check;
mod console;
mod demo;
mod screen;
mod sshd;
mod world;

use tunnel_daemon::{
    error::{CliError, Exit},
    output::OutputFormat,
    shutdown::{self, Deadlines, Signals, Tasks},
};
use tunnel_linkem::LinkConfig;

use self::world::World;

/// Nobody waits for the streams of a lab.
const DEADLINES: Deadlines = Deadlines {
    drain: std::time::Duration::from_secs(1),
    flush: std::time::Duration::from_secs(5),
};

/// What to build.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many edges.
    pub nodes: u16,
    /// The link of each edge at first, as [`LinkConfig`] reads it.
    pub link: String,
    /// Whether to prove the path and end, instead of showing figures until told to stop.
    pub check: bool,
}

/// Runs the lab until it is told to stop, or until it has proved itself.
pub async fn run(plan: Plan, format: OutputFormat) -> Result<(), CliError> {
    let link: LinkConfig = plan.link.parse().map_err(|error: tunnel_linkem::ParseLinkError| {
        CliError::new(Exit::Usage, "lab-link", error.to_string()).with_hint("write a link as 3mbit,60ms,1%")
    })?;
    let signals = Signals::install()
        .map_err(|error| CliError::new(Exit::Failure, "signals", format!("cannot take over signals: {error}")))?;
    let tasks = Tasks::new();
    let world = World::start(usize::from(plan.nodes), link, &tasks).await?;
    let result = if plan.check {
        let result = check::run(&world, format).await;
        tasks.stop();
        result
    } else {
        screen::welcome(&world);
        tasks.spawn_aside(screen::figures(world.handles(), console::lines()));
        Ok(())
    };
    shutdown::run(&tasks, signals, DEADLINES).await?;
    result
}

fn broken(what: &str, error: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Failure, "lab", format!("{what}: {error}"))
}
