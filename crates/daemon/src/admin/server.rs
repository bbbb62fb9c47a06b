//! The daemon's end of the admin socket.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use hyper::body::{Body, Incoming};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::accept::{Acceptor, Listener};
use crate::error::{CliError, Exit};
use crate::http;

/// Connections that the kernel holds while the daemon is busy.
const BACKLOG: u32 = 64;

/// Who is at the other end of the socket, as the kernel says; in the extensions of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The process, where the kernel tells.
    pub pid: Option<i32>,
}

/// Why the admin socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process serves it.
    #[error("another process answers on {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The name is taken by something that is no socket, and that is left alone.
    #[error("{} exists and is no socket", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot bind {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl From<BindError> for CliError {
    fn from(error: BindError) -> Self {
        let (code, hint) = match &error {
            BindError::InUse { .. } => ("admin-in-use", "stop the other process, or configure another socket"),
            BindError::NotASocket { .. } => ("admin-not-a-socket", "move the file away, or configure another socket"),
            BindError::Io { .. } => (
                "admin-bind",
                "does the directory exist, may this user write to it, is the path below 100 bytes?",
            ),
        };
        Self::new(Exit::Failure, code, error.to_string()).with_hint(hint)
    }
}

/// The bound admin socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct AdminListener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, by which the file is recognised when the time comes to remove it.
    identity: (u64, u64),
}

impl AdminListener {
    /// Binds the socket with mode 0600, in place of one that a process left behind. Needs a runtime.
    pub fn bind(path: impl Into<PathBuf>) -> Result<Self, BindError> {
        let path = path.into();
        let io_error = |source| BindError::Io {
            path: path.clone(),
            source,
        };

        // Two processes that start at once both find a stale socket. The lock lets the second one find the first.
        let dir = path
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let dir_lock = File::open(dir).map_err(io_error)?;
        dir_lock.lock().map_err(io_error)?;

        require_free(&path)?;
        let (listener, identity) = bind_private(&path).map_err(io_error)?;
        Ok(Self {
            listener,
            path,
            identity,
        })
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Passes if nothing has that name, or a socket on which nobody answers.
fn require_free(path: &Path) -> Result<(), BindError> {
    use std::os::unix::fs::FileTypeExt;

    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(BindError::Io {
                path: path.to_owned(),
                source,
            });
        }
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(source) => Err(BindError::Io {
            path: path.to_owned(),
            source,
        }),
        Ok(_) => Err(BindError::InUse { path: path.to_owned() }),
    }
}

/// Binds under a name beside `path`, makes that private, listens, and only then gives it its name.
fn bind_private(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixSocket::new_stream()?;
    socket.bind(&draft)?;
    let bound = || {
        fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
        let identity = identity(Path::new(&draft))?;
        let listener = socket.listen(BACKLOG)?;
        fs::rename(&draft, path)?;
        Ok((listener, identity))
    };
    bound().inspect_err(|_: &io::Error| {
        let _ = fs::remove_file(&draft);
    })
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Drop for AdminListener {
    fn drop(&mut self) {
        // The name may by now belong to the process that took over.
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Listener for AdminListener {
    type Io = UnixStream;
    type Peer = tokio::net::unix::SocketAddr;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(UnixStream, Self::Peer)>> {
        self.listener.poll_accept(cx)
    }
}

/// Serves the admin API until `stop`; requests in progress are answered first.
///
/// Any hyper service will do; a tower one (axum's router, say) is wrapped in hyper-util's `TowerToHyperService`.
/// Requests carry a [`Peer`] in their extensions.
///
/// # Errors
/// Where the listener is broken.
pub async fn serve<S, B>(acceptor: Acceptor<AdminListener>, service: S, stop: CancellationToken) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let service_for = |stream: &UnixStream| {
        let peer = stream.peer_cred().map(|of| Peer {
            uid: of.uid(),
            gid: of.gid(),
            pid: of.pid(),
        });
        let service = service.clone();
        service_fn(move |mut request: Request<Incoming>| {
            if let Ok(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            service.call(request)
        })
    };
    http::serve(acceptor, service_for, stop).await
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
