//! `init`: a new cluster.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Serialize;
use tunnel_daemon::{
    error::CliError,
    output::{self, OutputFormat},
};
use tunnel_identity::UnixTime;
use tunnel_model::ClusterId;

use super::InitArgs;
use crate::state::{self, NewCluster};

#[derive(Serialize)]
struct Made {
    cluster: ClusterId,
    config: PathBuf,
    state: PathBuf,
    admin_secret: PathBuf,
}

pub(super) async fn run(config: &Path, args: InitArgs, format: OutputFormat) -> Result<(), CliError> {
    let new = NewCluster {
        config: config.to_owned(),
        state: args.state,
        public: args.public,
        proxy: args.proxy,
        zone: args.zone,
    };
    let made = state::init(&new, UnixTime::from(SystemTime::now())).await?;
    let admin_secret = made.state.admin_secret();
    let shown = config.display();
    output::message(&format!(
        "a new cluster, {}; its configuration is in {shown}",
        made.cluster
    ));
    output::message("the secret of user \"admin\" is in the file:");
    match format {
        OutputFormat::Table => output::data(&admin_secret.display().to_string())?,
        OutputFormat::Json => output::data(&output::to_json(&Made {
            cluster: made.cluster,
            config: config.to_owned(),
            state: made.state.path().to_owned(),
            admin_secret,
        })?)?,
    }
    output::message(&format!(
        "next: tunnel-cloud serve --config {shown}\n      tunnel-cloud --config {shown} token create"
    ));
    Ok(())
}
