//! What can go wrong with a store, by what there is to do about it.

use std::path::PathBuf;

use tunnel_daemon::error::{CliError, Exit};
use tunnel_model::{NodeName, ReservedName};

/// A store did not do what it was asked. Nothing of it took effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk is full. Reading goes on; writing works again once there is space.
    #[error("the disk of the store {path:?} is full")]
    Full {
        /// The store's file.
        path: PathBuf,
    },
    /// The file is no store, or is damaged.
    #[error("{path:?} is damaged or no store of this gateway: {why}")]
    Corrupt {
        /// The store's file.
        path: PathBuf,
        /// What gave it away.
        why: String,
    },
    /// A newer version of the gateway has changed the file.
    #[error("{path:?} has schema version {found}, and this gateway knows versions up to {known}")]
    TooNew {
        /// The store's file.
        path: PathBuf,
        /// The file's version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// There is no store where one was expected.
    #[error("there is no store at {path:?}")]
    Missing {
        /// Where it was expected.
        path: PathBuf,
    },
    /// A file of this name is there already.
    #[error("{path:?} exists already")]
    Exists {
        /// The file in the way.
        path: PathBuf,
    },
    /// The file could not be read or written, or someone else holds it for too long.
    #[error("{path:?} cannot be used: {why}")]
    Unavailable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The store has been closed.
    #[error("the store {path:?} is closed")]
    Closed {
        /// The store's file.
        path: PathBuf,
    },
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let (code, hint) = match &error {
            StoreError::Full { .. } => ("store-full", "free space on that disk; nothing was lost"),
            StoreError::Corrupt { .. } => ("store-corrupt", "put back a copy that `tunnel-cloud backup` made"),
            StoreError::TooNew { .. } => (
                "store-too-new",
                "run the newer version, or put back a backup made before it",
            ),
            StoreError::Missing { .. } => (
                "store-missing",
                "run `tunnel-cloud init`, or correct `state` in the configuration",
            ),
            StoreError::Exists { .. } => ("store-exists", "name a file that does not exist yet"),
            StoreError::Unavailable { .. } => (
                "store-unavailable",
                "check the owner and mode of the file and its directory",
            ),
            StoreError::Closed { .. } => (
                "store-closed",
                "the gateway is about to stop; try again when it is back",
            ),
        };
        Self::new(Exit::Failure, code, error.to_string()).with_hint(hint)
    }
}

/// Why a token lets nobody join. The peer hears one and the same answer for all of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// No such token was ever made here, or it ended long ago.
    #[error("no such token")]
    Unknown,
    /// As many nodes have joined with it as may.
    #[error("the token is spent")]
    Spent,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// An operator has revoked it.
    #[error("the token was revoked")]
    Revoked,
}

/// A node could not join. The token is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrolError {
    /// The token is worth nothing.
    #[error(transparent)]
    Token(#[from] TokenFault),
    /// The token is for a node of another name.
    #[error("the token is for a node named {wanted}")]
    WrongName {
        /// The only name it allows.
        wanted: NodeName,
    },
    /// A node of this name has joined before, perhaps one that was revoked since.
    #[error("a node named {name} has joined already")]
    NameTaken {
        /// The name.
        name: NodeName,
    },
    /// No node may have this name.
    #[error(transparent)]
    Reserved(#[from] ReservedName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A node's certificate could not be renewed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// No such node, or no longer.
    #[error("no such node")]
    UnknownNode,
    /// The node was revoked.
    #[error("the node was revoked")]
    Revoked,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
