//! A new cluster: keys, store, first user and configuration file; all of it or nothing.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use tunnel_daemon::{
    error::{CliError, Exit},
    file::{self, Mode},
};
use tunnel_identity::{FileError, GatewayFiles, UnixTime};
use tunnel_model::{ADMINS, ClusterId, GatewayAddr, ParseNameError, UserName, Zone};

use super::StateDir;
use crate::{
    store::{SqliteStore, Store, StoreError},
    users,
};

/// What the operator decides about a new cluster.
#[derive(Debug, Clone)]
pub struct NewCluster {
    /// The configuration file to write.
    pub config: PathBuf,
    /// The state directory to make.
    pub state: PathBuf,
    /// Where edges will reach the gateway.
    pub public: GatewayAddr,
    /// Where the proxy listens.
    pub proxy: SocketAddr,
    /// The suffix of the nodes' names.
    pub zone: Zone,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Initialised {
    /// The new cluster.
    pub cluster: ClusterId,
    /// The state directory.
    pub state: StateDir,
}

/// No cluster was made, and nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The state directory holds something.
    #[error("{0:?} exists and is not empty")]
    StateExists(PathBuf),
    /// The configuration file is there.
    #[error("{0:?} exists already")]
    ConfigExists(PathBuf),
    /// Keys and certificates could not be made.
    #[error(transparent)]
    Keys(#[from] FileError),
    /// The store could not be made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or directory could not be written.
    #[error("{path:?} cannot be written: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The name of the first user or group is none. A mistake of this program.
    #[error("a built-in name is not valid: {0}")]
    Name(#[from] ParseNameError),
}

impl From<InitError> for CliError {
    fn from(error: InitError) -> Self {
        match error {
            InitError::Store(error) => error.into(),
            InitError::Keys(error) => Self::new(Exit::Failure, error.code(), error.to_string()),
            InitError::StateExists(_) => Self::new(Exit::Failure, "state-exists", error.to_string())
                .with_hint("choose another --state, or remove the directory if you mean to start anew"),
            InitError::ConfigExists(_) => Self::new(Exit::Failure, "config-exists", error.to_string())
                .with_hint("choose another --config, or remove the file if you mean to start anew"),
            InitError::Io { .. } => Self::new(Exit::Failure, "init-write", error.to_string())
                .with_hint("name a place that this user may write to"),
            InitError::Name(_) => Self::new(Exit::Failure, "internal", error.to_string()),
        }
    }
}

/// Makes a cluster.
pub async fn init(new: &NewCluster, now: UnixTime) -> Result<Initialised, InitError> {
    if fs::symlink_metadata(&new.config).is_ok() {
        return Err(InitError::ConfigExists(new.config.clone()));
    }
    let state = std::path::absolute(&new.state).map_err(failed(&new.state))?;
    let undo = Undo::prepare(&state)?;
    let dir = StateDir::new(state);
    let cluster = ClusterId::random(&mut rand::rng());
    GatewayFiles::init(&dir.keys(), cluster, &[new.public.0.host().to_owned()], now)?;
    add_admin(&dir, now).await?;

    // Last, since it is what makes the rest count.
    let text = config_text(new, dir.path());
    file::write_new(&new.config, text.as_bytes(), Mode::Public).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => InitError::ConfigExists(new.config.clone()),
        _ => failed(&new.config)(source),
    })?;
    undo.keep();
    Ok(Initialised { cluster, state: dir })
}

async fn add_admin(dir: &StateDir, now: UnixTime) -> Result<(), InitError> {
    let name: UserName = "admin".parse()?;
    let (user, secret) = users::new_user(name, vec![ADMINS.parse()?], now, &mut rand::rng());
    let store = SqliteStore::create(&dir.store()).await?;
    store.add_user(user).await?;
    let path = dir.admin_secret();
    file::write_new(&path, format!("{secret}\n").as_bytes(), Mode::Private).map_err(failed(&path))
}

/// What a file written by hand would say.
fn config_text(new: &NewCluster, state: &Path) -> String {
    let state = toml::Value::from(&*state.to_string_lossy());
    format!(
        "\
# The gateway's configuration. `tunnel-cloud config schema` lists every key, `config check` finds mistakes.
state = {state}
zone = \"{zone}\"

[listen]
public = \"{public}\"
proxy = \"{proxy}\"
metrics = \"127.0.0.1:7090\"

[gateway]
# Where edges reach this gateway: written into join tokens.
advertise = [\"{advertise}\"]

# Who may reach what; without a rule, nobody reaches anything.
[[rule]]
subjects = [\"group:{ADMINS}\"]
nodes = \"*\"
targets = [\"*\"]
",
        zone = new.zone,
        public = listen_for(&new.public),
        proxy = new.proxy,
        advertise = new.public,
    )
}

/// Where to listen to be reached at this address. A public address may be translated on its way here, so only a
/// loopback address is taken at its word.
fn listen_for(public: &GatewayAddr) -> SocketAddr {
    let ip = match public.0.ip() {
        Some(ip) if ip.is_loopback() => ip,
        Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    (ip, public.0.port()).into()
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> InitError {
    let path = path.to_owned();
    move |source| InitError::Io { path, source }
}

/// Removes what was made in the state directory, unless all of it was.
struct Undo {
    dir: PathBuf,
    was_there: bool,
    armed: bool,
}

impl Undo {
    /// Makes the directory, or finds it empty. Its owner alone may look in.
    fn prepare(dir: &Path) -> Result<Self, InitError> {
        let was_there = match fs::read_dir(dir) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(InitError::StateExists(dir.to_owned()));
                }
                true
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
                made.map_err(failed(dir))?;
                false
            }
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Err(InitError::StateExists(dir.to_owned())),
            Err(e) => return Err(failed(dir)(e)),
        };
        Ok(Self {
            dir: dir.to_owned(),
            was_there,
            armed: true,
        })
    }

    fn keep(mut self) {
        self.armed = false;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        // The directory was empty: whatever is in it now is ours. What cannot be removed is named by the next attempt.
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
        if !self.was_there {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

#[cfg(test)]
mod tests;
