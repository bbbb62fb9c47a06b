//! Who this node is while its agent runs: its keys, the cluster's root, and the time.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::watch, task::spawn_blocking};
use tracing::warn;
use tunnel_carrier::{Connection, Dialer, Patience, exchange};
use tunnel_identity::{
    Clock, ClusterRoot, Credential, Expiry, FileError, GatewayIdentity, IdentityError, NodeFiles, NodeIdentity,
    RenewRequest, Reply, Request, Serial, TimeFloor, UnixTime, Validity,
    tls::{self, Alpn},
};
use tunnel_model::{GatewayAddr, NodeId, Reason, Refusal};

/// How much newer a time must be to be worth a write to what may be a worn flash chip.
const WORTH_KEEPING: Duration = Duration::from_secs(3600);

/// The node's identity cannot be used. The agent then does not start: a new identity is for a person to ask for.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is none.
    #[error("{} holds no identity", .0.display())]
    NotEnrolled(PathBuf),
    /// A file is damaged, missing, or may be read by others.
    #[error(transparent)]
    Files(#[from] FileError),
    /// The certificate is not a node's of this cluster.
    #[error("the certificate in {} cannot be used: {why}", dir.display())]
    Certificate {
        /// The state directory.
        dir: PathBuf,
        /// What is wrong with it.
        why: IdentityError,
    },
}

/// The floor under every clock reading: the build, and the last good time that was kept.
pub fn time_floor(files: &NodeFiles) -> TimeFloor {
    let built = env!("TUNNEL_BUILD_TIME").parse().unwrap_or(0);
    TimeFloor::new(UnixTime::from_secs(built), files.last_good_time())
}

/// A node's identity. Connections that are made after a renewal use the new certificate; those that run go on.
#[derive(Debug)]
pub struct Identity {
    files: NodeFiles,
    root: ClusterRoot,
    node: NodeId,
    changing: Mutex<Changing>,
    validity: watch::Sender<Validity>,
}

#[derive(Debug)]
struct Changing {
    credential: Credential,
    clock: Clock,
    kept: UnixTime,
}

impl Identity {
    /// Reads the identity that joining left in the state directory.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        let files = NodeFiles::open(dir)?;
        let not_enrolled = || LoadError::NotEnrolled(dir.to_owned());
        let credential = files.node().load()?.ok_or_else(not_enrolled)?;
        let root = files.root()?.ok_or_else(not_enrolled)?;
        let read = read_own(&credential, &root).map_err(|why| LoadError::Certificate {
            dir: dir.to_owned(),
            why,
        })?;
        let floor = time_floor(&files);
        Ok(Self {
            root,
            node: read.node,
            changing: Mutex::new(Changing {
                credential,
                kept: files.last_good_time().unwrap_or(UnixTime::from_secs(0)),
                clock: Clock::new(floor),
            }),
            files,
            validity: watch::Sender::new(read.validity),
        })
    }

    /// The node's id.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// When the present certificate is valid; changes when it is renewed.
    pub fn validity(&self) -> watch::Receiver<Validity> {
        self.validity.subscribe()
    }

    /// The time, as well as it is known.
    pub fn now(&self) -> UnixTime {
        self.lock().clock.now(SystemTime::now().into(), Instant::now())
    }

    /// How to connect for this purpose, with the present certificate.
    pub fn tls(&self, alpn: Alpn) -> Result<rustls::ClientConfig, Refusal> {
        let state = self.lock();
        tls::client_config_node(&self.root, &state.credential, state.clock.floor(), alpn)
            .map_err(|error| Refusal::new(Reason::Internal, format!("cannot set up TLS: {error}")))
    }

    /// Takes the time that the gateway at the other end of the connection told. A time that cannot be is not believed,
    /// and no reason to end the connection.
    pub async fn learn(&self, connection: &Connection, claimed: UnixTime) {
        let learned = self.take_time(&connection.peer_chain(), claimed);
        match learned {
            Ok(Some(time)) => {
                let files = self.files.clone();
                let kept = spawn_blocking(move || files.save_last_good_time(time)).await;
                // The next start only has a lower floor. A full disk must not stop the tunnel.
                if let Ok(Err(error)) = kept {
                    warn!(%error, "the time was not kept");
                }
            }
            Ok(None) => {}
            Err(why) => warn!(%why, "the gateway's time is not believed"),
        }
    }

    /// The floor, if it is worth being kept.
    fn take_time(
        &self,
        chain: &[rustls_pki_types::CertificateDer<'_>],
        claimed: UnixTime,
    ) -> Result<Option<UnixTime>, String> {
        let mut state = self.lock();
        let gateway = GatewayIdentity::from_chain(chain, &self.root, state.clock.floor());
        let gateway = gateway.map_err(|error| error.to_string())?;
        let learned = state.clock.learn(claimed, Instant::now(), gateway.validity);
        learned.map_err(|error| error.to_string())?;
        let floor = state.clock.floor().get();
        let worth = floor.since(state.kept) >= WORTH_KEEPING;
        if worth {
            state.kept = floor;
        }
        Ok(worth.then_some(floor))
    }

    /// Gets the next certificate, over a connection of its own, and keeps it. Whatever cuts this short leaves a usable
    /// identity on disk.
    pub async fn renew(&self, dialer: &Dialer, gateways: &[GatewayAddr]) -> Result<Validity, Refusal> {
        let files = self.files.node();
        let key = blocking(move || files.begin()).await?;
        let request = RenewRequest::build(&key).map_err(|error| Refusal::new(Reason::Internal, error.to_string()))?;
        let question = Request::Renew(request).encode().map_err(|e| malformed(&e))?;

        let connection = dialer
            .dial(gateways, &self.tls(Alpn::Enrol)?, Patience::default())
            .await?;
        let answer = exchange::ask(&connection, &question).await;
        connection.close(&Refusal::new(Reason::Cancelled, "done"));
        let issued = match Reply::decode(&answer?).map_err(|e| malformed(&e))? {
            Reply::Issued(issued) => issued,
            Reply::Refused(refusal) => return Err(refusal),
        };
        self.learn(&connection, issued.time).await;

        let files = self.files.node();
        let credential = blocking(move || files.commit(issued.chain)).await?;
        let read = read_own(&credential, &self.root).map_err(|why| Refusal::new(Reason::Protocol, why.to_string()))?;
        self.lock().credential = credential;
        self.validity.send_replace(read.validity);
        Ok(read.validity)
    }

    fn lock(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What our own certificate says, at whatever time.
fn read_own(credential: &Credential, root: &ClusterRoot) -> Result<NodeIdentity, IdentityError> {
    let any_time = (UnixTime::from_secs(u64::MAX), Expiry::Within(Duration::MAX));
    NodeIdentity::from_chain(
        credential.chain(),
        root,
        any_time.0,
        any_time.1,
        &|_: NodeId, _: &Serial| false,
    )
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, Refusal> {
    let failed = |error: &dyn std::fmt::Display| {
        let message = format!("cannot keep the new certificate: {error}");
        Refusal::new(Reason::Internal, message)
    };
    match spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

fn malformed(error: &tunnel_identity::MessageError) -> Refusal {
    Refusal::new(Reason::Protocol, error.to_string())
}
