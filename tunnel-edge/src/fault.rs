//! What went wrong, as an operator reads it: one line, a code, an exit code, and what to do.

use tunnel_daemon::error::{CliError, Exit};
use tunnel_identity::FileError;
use tunnel_model::{Reason, Refusal};

use crate::{agent::StartError, identity::LoadError};

/// A refusal as the error of a command.
pub(crate) fn refused(code: &'static str, refusal: &Refusal) -> CliError {
    let exit = match refusal.reason {
        Reason::Denied | Reason::Revoked | Reason::Unauthenticated => Exit::Denied,
        Reason::NodeOffline => Exit::NodeOffline,
        Reason::IdleTimeout | Reason::TargetTimeout => Exit::Timeout,
        _ => Exit::Failure,
    };
    CliError::new(exit, code, refusal.to_string())
}

pub(crate) fn file_error(error: FileError) -> CliError {
    CliError::new(Exit::Failure, error.code(), error.to_string())
}

pub(crate) fn load_error(error: LoadError) -> CliError {
    match error {
        LoadError::NotEnrolled(_) => CliError::new(Exit::Failure, "not-enrolled", error.to_string())
            .with_hint("join first: tunnel-edge join TOKEN"),
        LoadError::Files(error) => file_error(error),
        LoadError::Certificate { ref why, .. } => CliError::new(Exit::Failure, why.code(), error.to_string())
            .with_hint("restore the directory from a backup, or join anew with another one"),
    }
}

pub(crate) fn start_error(error: StartError) -> CliError {
    match error {
        StartError::Identity(error) => load_error(error),
        StartError::Proxies(error) => CliError::new(Exit::Usage, "proxy-invalid", error.to_string())
            .with_hint("correct it in the agent's environment, or set link.proxy in edge.toml, which counts instead"),
        StartError::Bind { .. } => CliError::new(Exit::Failure, "link-bind", error.to_string())
            .with_hint("set link.local_port to a port that is free, or leave it out"),
        StartError::Listen { .. } | StartError::Proxy { .. } => {
            CliError::new(Exit::Failure, "listen-bind", error.to_string())
                .with_hint("is the address one of this machine, and free?")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_a_person_can_do() {
        let error = load_error(LoadError::NotEnrolled("/s".into()));
        assert_eq!(
            error.to_string(),
            "error[not-enrolled]: /s holds no identity (join first: tunnel-edge join TOKEN)"
        );
    }
}
