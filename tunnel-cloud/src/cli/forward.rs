//! `forward`: a port that leads to a target for as long as the command runs.

use hyper::Method;
use tunnel_daemon::{
    error::{CliError, Exit},
    output::{self, OutputFormat},
};

use super::{args::ForwardArgs, gateway::Gateway};
use crate::admin::api::{CreateForward, ForwardOpened};

pub(super) async fn run(gateway: &Gateway, args: ForwardArgs, format: OutputFormat) -> Result<(), CliError> {
    let ForwardArgs {
        to,
        listen,
        class,
        public,
    } = args;
    let wanted = CreateForward {
        listen,
        node: to.node,
        target: to.target,
        protocol: to.protocol,
        class,
        public,
    };
    let mut answer = gateway.follow(Method::POST, "/v1/forwards", Some(&wanted)).await?;
    let Some(opened) = answer.next::<ForwardOpened>().await? else {
        return Err(ended());
    };
    match format {
        OutputFormat::Table => output::data(&format!("{} leads to {}", opened.listen, wanted.destination()))?,
        OutputFormat::Json => output::data(&output::to_json(&opened)?)?,
    }
    // Nothing more is said until the gateway ends.
    while answer.next::<ForwardOpened>().await?.is_some() {}
    Err(ended())
}

fn ended() -> CliError {
    CliError::new(Exit::Failure, "forward-ended", "the gateway has closed the forward")
        .with_hint("run the command again once the gateway is back")
}
