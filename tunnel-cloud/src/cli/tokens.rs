//! `token`: join tokens.

use std::collections::BTreeMap;

use hyper::Method;
use tunnel_daemon::{
    error::{CliError, Exit},
    output::{self, OutputFormat, Table},
};
use tunnel_model::{Labels, NodeName};

use super::{
    TokenArgs, TokenCommand,
    gateway::{Gateway, segment},
};
use crate::admin::api::{CreateToken, Done, NewToken, TokenList, TokenState};

pub(super) async fn run(command: TokenCommand, gateway: &Gateway, format: OutputFormat) -> Result<(), CliError> {
    match command {
        TokenCommand::Create(args) => create(args, gateway, format).await,
        TokenCommand::Ls => format.emit(&gateway.get::<TokenList>("/v1/tokens").await?, table),
        TokenCommand::Revoke { id } => {
            let path = format!("/v1/tokens/{}", segment(&id));
            let Done {} = gateway.request(Method::DELETE, &path, None::<&()>).await?;
            output::message(&format!("token {id} is revoked"));
            Ok(())
        }
    }
}

async fn create(args: TokenArgs, gateway: &Gateway, format: OutputFormat) -> Result<(), CliError> {
    let labels: BTreeMap<_, _> = args.labels.into_iter().collect();
    let wanted = CreateToken {
        name: args.name,
        labels: Labels::try_from(labels).map_err(|error| CliError::new(Exit::Usage, "bad-label", error.to_string()))?,
        ttl_seconds: args.ttl.as_secs(),
        uses: args.uses,
    };
    let made: NewToken = gateway.request(Method::POST, "/v1/tokens", Some(&wanted)).await?;
    match format {
        OutputFormat::Table => output::data(&made.token),
        OutputFormat::Json => output::data(&output::to_json(&made)?),
    }
}

fn table(list: &TokenList) -> Table {
    let mut table = Table::new(["id", "state", "uses left", "expires", "name", "labels"]);
    for token in &list.tokens {
        let state = match token.state {
            TokenState::Valid => "valid",
            TokenState::Spent => "spent",
            TokenState::Expired => "expired",
            TokenState::Revoked => "revoked",
        };
        table.row([
            &token.id.to_string(),
            state,
            &token.uses_left.to_string(),
            &token.expires_at,
            token.name.as_ref().map_or("", NodeName::as_str),
            &token.labels.to_string(),
        ]);
    }
    table
}
