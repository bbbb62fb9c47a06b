//! `lab`: a gateway and a few edges in one process.

use tunnel_daemon::{error::CliError, output::OutputFormat};

use super::LabArgs;

#[cfg(feature = "lab")]
pub(super) async fn run(args: LabArgs, format: OutputFormat) -> Result<(), CliError> {
    let plan = crate::lab::Plan {
        nodes: args.nodes,
        link: args.link,
        check: args.check,
    };
    crate::lab::run(plan, format).await
}

#[cfg(not(feature = "lab"))]
pub(super) async fn run(_: LabArgs, _: OutputFormat) -> Result<(), CliError> {
    Err(
        CliError::new(tunnel_daemon::error::Exit::Usage, "no-lab", "this build has no lab")
            .with_hint("build with the feature `lab`, which is on by default"),
    )
}
