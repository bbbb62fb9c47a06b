//! The store in one SQLite file.
//!
//! One thread owns the one connection and works through a bounded queue of jobs; whoever finds the queue full waits, so
//! a storm of joins slows down and takes no memory. Every write is a transaction in WAL mode with `synchronous=FULL`:
//! when it is acknowledged, it is on the disk.

mod backup;
mod column;
mod loss;
mod node;
mod route;
mod schema;
mod token;
mod user;

#[cfg(test)]
mod tests;

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use tokio::sync::{mpsc, oneshot};
use tunnel_model::{Labels, LinkLoss, NodeId, Subnet, TokenId, UserName};

use super::{Approval, Certificate, EnrolError, Enrolment, Node, Presence, RenewError, Store, StoreError, Token, User};

/// How many jobs may wait for the connection.
const QUEUE: usize = 256;

/// How long a job waits for another process, such as a backup tool, to let go of the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A [`Store`] in one SQLite file, for one gateway.
///
/// Dropping it waits until what was asked for is done and the file is closed, so that it is whole without its
/// write-ahead log.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    /// `None` only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl SqliteStore {
    /// Makes a new store in a file that must not exist, readable for its owner only.
    pub async fn create(path: &Path) -> Result<Self, StoreError> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        match made {
            Ok(_) => Self::start(path, schema::create).await,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(StoreError::Exists { path: path.to_owned() }),
            Err(e) => Err(unavailable(path, e)),
        }
    }

    /// Opens a store, and brings it up to the schema of this version.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        match path.try_exists() {
            Ok(true) => Self::start(path, schema::check).await,
            Ok(false) => Err(StoreError::Missing { path: path.to_owned() }),
            Err(e) => Err(unavailable(path, e)),
        }
    }

    async fn start(path: &Path, prepare: fn(&Connection) -> rusqlite::Result<()>) -> Result<Self, StoreError> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let (opened, ready) = oneshot::channel();
        let file = path.to_owned();
        let work = move || {
            let mut connection = match connect(&file, prepare) {
                Ok(connection) => connection,
                Err(error) => return drop(opened.send(Err(error))),
            };
            if opened.send(Ok(())).is_err() {
                return;
            }
            while let Some(job) = queue.blocking_recv() {
                job(&mut connection);
            }
        };
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(work)
            .map_err(|e| unavailable(path, e))?;
        let store = Self {
            path: path.to_owned(),
            jobs: Some(jobs),
            thread: Some(thread),
        };
        ready.await.map_err(|_| store.closed())??;
        Ok(store)
    }

    /// Runs a job on the connection's thread. A job whose caller went away is still done.
    async fn run<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Nobody waits any more: the work is done all the same.
            let _ = reply.send(job(connection));
        });
        let jobs = self.jobs.as_ref().ok_or_else(|| self.closed())?;
        jobs.send(job).await.map_err(|_| self.closed())?;
        let done = answer.await.map_err(|_| self.closed())?;
        done.map_err(|error| explain(&self.path, error))
    }

    fn closed(&self) -> StoreError {
        StoreError::Closed {
            path: self.path.clone(),
        }
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported where it happened.
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn add_token(&self, token: Token) -> Result<(), StoreError> {
        self.run(move |c| token::add(c, &token)).await
    }

    async fn token(&self, id: TokenId) -> Result<Option<Token>, StoreError> {
        self.run(move |c| token::get(c, id)).await
    }

    async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.run(|c| token::list(c)).await
    }

    async fn revoke_token(&self, id: TokenId, at: u64) -> Result<bool, StoreError> {
        self.run(move |c| token::revoke(c, id, at)).await
    }

    async fn enrol(&self, enrolment: Enrolment) -> Result<Node, EnrolError> {
        self.run(move |c| node::enrol(c, &enrolment)).await?
    }

    async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        self.run(|c| node::list(c)).await
    }

    async fn set_labels(&self, id: NodeId, labels: Labels) -> Result<bool, StoreError> {
        self.run(move |c| node::set_labels(c, id, &labels)).await
    }

    async fn set_presence(&self, batch: Vec<Presence>) -> Result<(), StoreError> {
        self.run(move |c| node::set_presence(c, &batch)).await
    }

    async fn revoke_node(&self, id: NodeId, at: u64) -> Result<bool, StoreError> {
        self.run(move |c| node::revoke(c, id, at)).await
    }

    async fn remove_node(&self, id: NodeId) -> Result<bool, StoreError> {
        self.run(move |c| node::remove(c, id)).await
    }

    async fn renew(&self, certificate: Certificate) -> Result<(), RenewError> {
        self.run(move |c| node::renew(c, &certificate)).await?
    }

    async fn certificates(&self, node: NodeId) -> Result<Vec<Certificate>, StoreError> {
        self.run(move |c| node::certificates(c, node)).await
    }

    async fn approve_route(&self, approval: Approval) -> Result<bool, StoreError> {
        self.run(move |c| route::approve(c, &approval)).await
    }

    async fn revoke_route(&self, node: NodeId, subnet: Subnet) -> Result<bool, StoreError> {
        self.run(move |c| route::revoke(c, node, subnet)).await
    }

    async fn approvals(&self) -> Result<Vec<Approval>, StoreError> {
        self.run(|c| route::list(c)).await
    }

    async fn add_losses(&self, node: NodeId, losses: Vec<LinkLoss>) -> Result<(), StoreError> {
        self.run(move |c| loss::add(c, node, &losses)).await
    }

    async fn losses(&self, node: NodeId) -> Result<Vec<LinkLoss>, StoreError> {
        self.run(move |c| loss::list(c, node)).await
    }

    async fn add_user(&self, user: User) -> Result<bool, StoreError> {
        self.run(move |c| user::add(c, &user)).await
    }

    async fn remove_user(&self, name: UserName) -> Result<bool, StoreError> {
        self.run(move |c| user::remove(c, &name)).await
    }

    async fn users(&self) -> Result<Vec<User>, StoreError> {
        self.run(|c| user::list(c)).await
    }

    /// The copy is made on a connection of its own, so that writers do not wait for it.
    async fn backup(&self, to: PathBuf) -> Result<(), StoreError> {
        let from = self.path.clone();
        let copied = tokio::task::spawn_blocking(move || backup::copy(&from, &to)).await;
        copied.unwrap_or_else(|_| Err(self.closed()))
    }
}

fn connect(path: &Path, prepare: fn(&Connection) -> rusqlite::Result<()>) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        prepare(&connection)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let found = schema::version(&connection)?;
        if found <= schema::NEWEST {
            schema::migrate(&mut connection, found)?;
        }
        Ok((connection, found))
    };
    match open() {
        Ok((_, found)) if found > schema::NEWEST => Err(StoreError::TooNew {
            path: path.to_owned(),
            found,
            known: schema::NEWEST,
        }),
        Ok((connection, _)) => Ok(connection),
        Err(error) => Err(explain(path, error)),
    }
}

fn unavailable(path: &Path, why: impl ToString) -> StoreError {
    StoreError::Unavailable {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

/// What SQLite's error means to an operator.
fn explain(path: &Path, error: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    let why = error.to_string();
    // The shared-memory file beside the store could not grow: that is a full disk too.
    let shm_full = error.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_SHMSIZE);
    match error.sqlite_error_code() {
        _ if shm_full => StoreError::Full { path },
        Some(ErrorCode::DiskFull) => StoreError::Full { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt { path, why },
        Some(_) => StoreError::Unavailable { path, why },
        // SQLite did its part, and what it read is not what this program writes.
        None => StoreError::Corrupt { path, why },
    }
}
