//! Where the two ends of a subject are.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use tokio::process::Command;

use crate::process::{Running, capture};

/// The near end is where the bench is. The far end, which dials it, is beside it or in a namespace of its own.
pub(crate) struct Place {
    near: IpAddr,
    far: Option<String>,
}

impl Place {
    /// Both on loopback.
    pub(crate) fn loopback() -> Self {
        Self {
            near: Ipv4Addr::LOCALHOST.into(),
            far: None,
        }
    }

    /// The far end is in that network namespace, and reaches the near end at this address.
    pub(crate) fn apart(near: IpAddr, namespace: String) -> Self {
        Self {
            near,
            far: Some(namespace),
        }
    }

    /// The near end's address as the far end knows it.
    pub(super) fn near(&self) -> IpAddr {
        self.near
    }

    /// A port of the near end, as the far end dials it.
    pub(super) fn near_port(&self, port: u16) -> SocketAddr {
        (self.near, port).into()
    }

    /// Starts a program of the far end.
    pub(super) fn start(&self, program: &Path, args: &[&str], log: &Path) -> anyhow::Result<Running> {
        match &self.far {
            None => Running::start(program, args, log),
            Some(namespace) => {
                // It becomes the program, so that to kill the one is to kill the other.
                let program = program.display().to_string();
                let args = [&["netns", "exec", namespace, &program], args].concat();
                Running::start(Path::new("ip"), &args, log)
            }
        }
    }

    /// Runs a program of the far end to its end, and gives what it says on stdout.
    pub(super) async fn capture(&self, program: &Path, args: &[&str]) -> anyhow::Result<String> {
        let mut command = match &self.far {
            None => Command::new(program),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(program);
                command
            }
        };
        capture(command.args(args)).await
    }
}
