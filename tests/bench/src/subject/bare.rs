//! The bare relay as two processes.

use std::path::Path;

use anyhow::Context;

use super::Started;
use crate::{
    load::{Backends, Entry},
    process::Running,
};

pub(super) async fn start(backends: Backends, dir: &Path) -> anyhow::Result<Started> {
    let program = std::env::current_exe()?;
    let mut near = Running::start_talking(&program, &["bare-near"], &dir.join("bare-near.log"))?;
    let line = near.line().await?;
    let [address, tcp, http] = line.split(' ').collect::<Vec<_>>()[..] else {
        anyhow::bail!("the near end said {line:?}");
    };
    let targets = [backends.tcp.to_string(), backends.http.to_string()];
    let args = ["bare-far", address, &targets[0], &targets[1]];
    let far = Running::start(&program, &args, &dir.join("bare-far.log"))?;
    near.line().await.context("the far end does not connect")?;
    let entry = Entry::Ports {
        tcp: tcp.parse()?,
        http: http.parse()?,
    };
    Ok(Started {
        entry,
        udp: None,
        _processes: vec![near.running, far],
    })
}
