//! Users.

use std::time::SystemTime;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
};
use tunnel_daemon::error::{CliError, Exit};
use tunnel_identity::UnixTime;
use tunnel_model::UserName;

use crate::oidc::Oidc;

use super::{
    AppState,
    api::{CreateUser, Done, NewUser, UserList, UserView},
    error::{Answer, ApiError, read},
};

pub(super) async fn create(State(app): State<AppState>, body: Bytes) -> Answer<NewUser> {
    let CreateUser { name, groups } = read(&body)?;
    let reserved = match &app.gateway {
        Some(gateway) => gateway.is_issuers(&name),
        None => Oidc::claims_name(&app.config.oidc, &name),
    };
    if reserved {
        let message = format!("{name} begins as the users of an issuer of tokens do (key \"oidc.username_prefix\")");
        return Err(CliError::new(Exit::Failure, "user-name-reserved", message)
            .with_hint("choose another name")
            .into());
    }
    let now = UnixTime::from(SystemTime::now());
    let secret = app.state.users.create(name.clone(), groups, now).await?;
    tracing::info!(user = %name, "user created");
    Ok(Json(NewUser {
        name,
        secret: secret.to_string(),
    }))
}

pub(super) async fn list(State(app): State<AppState>) -> Json<UserList> {
    let users = app.state.users.list();
    Json(UserList {
        users: users
            .into_iter()
            .map(|user| UserView {
                name: user.name,
                groups: user.groups,
                created_at: UnixTime::from_secs(user.created_at).to_string(),
            })
            .collect(),
    })
}

pub(super) async fn remove(State(app): State<AppState>, Path(name): Path<String>) -> Answer<Done> {
    // What cannot be a name is the name of no user.
    let removed = match name.parse::<UserName>() {
        Ok(name) => {
            let removed = app.state.users.remove(&name).await?;
            if let Some(gateway) = &app.gateway {
                gateway.user_removed(&name);
            }
            removed
        }
        Err(_) => false,
    };
    if !removed {
        return Err(unknown_user(&name));
    }
    tracing::info!(user = name, "user removed");
    Ok(Json(Done {}))
}

pub(super) fn unknown_user(name: &str) -> ApiError {
    CliError::new(Exit::Failure, "unknown-user", format!("no user is named {name:?}"))
        .with_hint("`tunnel-cloud users ls` lists them")
        .into()
}
