//! `users`: people and programs that reach nodes.

use hyper::Method;
use tunnel_daemon::{
    error::CliError,
    output::{self, OutputFormat, Table},
};
use tunnel_model::GroupName;

use super::{
    UsersCommand, certificates,
    gateway::{Gateway, segment},
};
use crate::admin::api::{CreateUser, Done, NewUser, UserList};

pub(super) async fn run(command: UsersCommand, gateway: &Gateway, format: OutputFormat) -> Result<(), CliError> {
    match command {
        UsersCommand::Create { name, groups } => {
            let wanted = CreateUser { name, groups };
            let made: NewUser = gateway.request(Method::POST, "/v1/users", Some(&wanted)).await?;
            match format {
                OutputFormat::Table => output::data(&made.secret),
                OutputFormat::Json => output::data(&output::to_json(&made)?),
            }
        }
        UsersCommand::Ls => format.emit(&gateway.get::<UserList>("/v1/users").await?, table),
        UsersCommand::Certificate(args) => certificates::run(args, gateway, format).await,
        UsersCommand::Rm { name } => {
            let path = format!("/v1/users/{}", segment(&name));
            let Done {} = gateway.request(Method::DELETE, &path, None::<&()>).await?;
            output::message(&format!("user {name} is removed"));
            Ok(())
        }
    }
}

fn table(list: &UserList) -> Table {
    let mut table = Table::new(["name", "groups", "created"]);
    for user in &list.users {
        let groups: Vec<_> = user.groups.iter().map(GroupName::as_str).collect();
        table.row([user.name.as_str(), &groups.join(","), &user.created_at]);
    }
    table
}
