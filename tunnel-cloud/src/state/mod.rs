//! What a gateway, or a command in its absence, works on: the state directory, opened by one process at a time.

mod init;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use tunnel_daemon::error::{CliError, Exit};
use tunnel_identity::{Authority, FileError, GatewayFiles, UnixTime};

use crate::{
    audit::{self, Audit},
    config::Config,
    directory::LiveDirectory,
    store::{LockError, SqliteStore, StateLock, Store, StoreError},
    users::Users,
};

pub use init::{InitError, Initialised, NewCluster, init};

/// The files in a state directory.
#[derive(Debug, Clone)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The state in this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where keys and certificates are.
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// The store's file.
    pub fn store(&self) -> PathBuf {
        self.0.join("store.db")
    }

    /// The file with the secret of the first user, `admin`.
    pub fn admin_secret(&self) -> PathBuf {
        self.0.join("admin.secret")
    }
}

/// A state directory, opened and locked.
pub struct State {
    /// Everything that must not be forgotten.
    pub store: Arc<dyn Store>,
    /// The nodes.
    pub directory: Arc<LiveDirectory>,
    /// The users.
    pub users: Arc<Users>,
    /// Who signs for nodes.
    pub authority: Arc<Authority>,
    /// Where the keys are, for the gateway's own and for rotation.
    pub keys: GatewayFiles,
    /// What is written down for good: who reached what, who joined, what administrators did.
    pub audit: Arc<Audit>,
    _lock: StateLock,
}

/// A state directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// `init` was never run for it, or it is not there.
    #[error("{0:?} holds no gateway's state")]
    Missing(PathBuf),
    /// Another process works on it, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A key or certificate cannot be used.
    #[error(transparent)]
    Keys(#[from] FileError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The audit log cannot be used.
    #[error(transparent)]
    Audit(#[from] audit::OpenError),
}

impl State {
    /// Opens the state of the gateway with this configuration.
    pub async fn open(config: &Config) -> Result<Self, OpenError> {
        let dir = StateDir::new(&config.state);
        if !dir.keys().is_dir() {
            return Err(OpenError::Missing(config.state.clone()));
        }
        let lock = StateLock::take(dir.path())?;
        let keys = GatewayFiles::open(&dir.keys());
        let authority = Arc::new(keys.authority()?);
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&dir.store()).await?);
        let directory = LiveDirectory::load(Arc::clone(&store), UnixTime::from(SystemTime::now())).await?;
        let users = Users::load(Arc::clone(&store)).await?;
        let audit = Audit::open(&config.audit)?;
        Ok(Self {
            store,
            directory: Arc::new(directory),
            users: Arc::new(users),
            authority,
            keys,
            audit: Arc::new(audit),
            _lock: lock,
        })
    }
}

impl From<OpenError> for CliError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Store(error) => error.into(),
            OpenError::Audit(error) => error.into(),
            OpenError::Keys(error) => Self::new(Exit::Failure, error.code(), error.to_string()),
            OpenError::Missing(_) => Self::new(Exit::Failure, "state-missing", error.to_string())
                .with_hint("run `tunnel-cloud init`, or correct `state` in the configuration"),
            OpenError::Lock(LockError::Held(_)) => Self::new(Exit::Failure, "state-busy", error.to_string())
                .with_hint("wait for it, or stop it; a gateway that answers no command may still be starting"),
            OpenError::Lock(LockError::Io { .. }) => Self::new(Exit::Failure, "state-lock", error.to_string())
                .with_hint("run as the user that owns the state directory"),
        }
    }
}
