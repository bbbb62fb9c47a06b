//! Keys and certificates on disk: PEM, directory 0700, keys 0600, every write whole or not at all.
//!
//! A credential `X` is `X.key` and `X.crt`, two files that no file system replaces together. So a new key waits in
//! `X.next.key`; writing `X.crt` for it is the one step that counts, and moving the key into place can be done by
//! whoever comes next. At each point in time `X.crt` has its key in one of the two.
//!
//! What cannot be read as it should be is an error with a fix, and never a reason to make a new key: that would be a new
//! identity.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustls_pki_types::CertificateDer;
use tunnel_model::ClusterId;
use zeroize::Zeroizing;

use crate::{Authority, CaError, ClusterRoot, Credential, KeyError, PrivateKey, PublicKey, Root, UnixTime, pem};

/// Keys or certificates on disk could not be used; [`Self::code`] is stable.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Others than the owner may read the key.
    #[error("{} may be read by others (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    KeyPermissions {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no usable private key.
    #[error("{} is damaged: {why}; restore it from a backup, or on an edge remove it and join again", path.display())]
    KeyCorrupt {
        /// The key file.
        path: PathBuf,
        /// What is wrong.
        why: KeyError,
    },
    /// The certificate is for another key.
    #[error("{} does not belong to the certificate beside it; restore both from one backup, or on an edge remove both and join again", path.display())]
    KeyMismatch {
        /// The key file.
        path: PathBuf,
    },
    /// The certificate is there and its key is not, or the other way round.
    #[error("{} is missing and its counterpart is there; restore it from a backup, or on an edge remove both and join again", path.display())]
    Incomplete {
        /// The missing file.
        path: PathBuf,
    },
    /// There is none of it.
    #[error("{} does not exist; nothing was set up in this directory yet", path.display())]
    Missing {
        /// The missing file.
        path: PathBuf,
    },
    /// The file holds no usable certificate.
    #[error("{} is damaged; restore it from a backup, or on an edge remove it and its key and join again", path.display())]
    CertCorrupt {
        /// The certificate file.
        path: PathBuf,
    },
    /// Something is there already that would be lost.
    #[error("{} exists already; choose another directory, or remove it if you mean to start anew", path.display())]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// The certificates could not be made.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl FileError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::KeyPermissions { .. } => "key-permissions",
            Self::KeyCorrupt { .. } => "key-corrupt",
            Self::KeyMismatch { .. } => "key-mismatch",
            Self::Incomplete { .. } => "key-incomplete",
            Self::Missing { .. } => "state-missing",
            Self::CertCorrupt { .. } => "cert-corrupt",
            Self::Exists { .. } => "state-exists",
            Self::Ca(_) => "ca-failed",
            Self::Key(_) => "key-failed",
            Self::Io { .. } => "state-io",
        }
    }
}

/// One credential in a directory: its key, its chain, and while it is being replaced its next key.
#[derive(Debug, Clone)]
pub struct CredentialFiles {
    dir: PathBuf,
    name: &'static str,
}

impl CredentialFiles {
    fn new(dir: &Path, name: &'static str) -> Self {
        Self {
            dir: dir.to_owned(),
            name,
        }
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", self.name))
    }

    /// Reads key and chain; finishes a replacement that was cut short after it had counted. `None` if there is neither.
    pub fn load(&self) -> Result<Option<Credential>, FileError> {
        let (key_path, next_path, cert_path) = (self.path("key"), self.path("next.key"), self.path("crt"));
        let chain = read_certs(&cert_path)?;
        let Some(chain) = chain else {
            return match read_key(&key_path)? {
                Some(_) => Err(FileError::Incomplete { path: cert_path }),
                None => Ok(None),
            };
        };
        let wanted = PublicKey::from_certificate(&chain[0]).map_err(|_| FileError::CertCorrupt { path: cert_path })?;
        let fits = |key: &PrivateKey| key.public().is_ok_and(|public| public == wanted);
        let current = match read_key(&key_path) {
            Ok(Some(key)) if fits(&key) => return Ok(Some(Credential::new(chain, key)?)),
            other => other,
        };
        // A next key that is damaged has certified nothing; only one that fits the certificate counts.
        if let Ok(Some(next)) = read_key(&next_path)
            && fits(&next)
        {
            rename(&next_path, &key_path)?;
            return Ok(Some(Credential::new(chain, next)?));
        }
        match current? {
            Some(_) => Err(FileError::KeyMismatch { path: key_path }),
            None => Err(FileError::Incomplete { path: key_path }),
        }
    }

    /// Makes the next key and keeps it until [`Self::commit`]. What is there stays in use.
    pub fn begin(&self) -> Result<PrivateKey, FileError> {
        self.load()?;
        let key = PrivateKey::generate()?;
        write(&self.path("next.key"), key.to_pem().as_bytes(), 0o600)?;
        Ok(key)
    }

    /// Replaces the credential by this chain, which must be for the key of the last [`Self::begin`]. On return it is on
    /// disk to stay.
    pub fn commit(&self, chain: Vec<CertificateDer<'static>>) -> Result<Credential, FileError> {
        let next_path = self.path("next.key");
        let key = read_key(&next_path)?.ok_or_else(|| FileError::Missing {
            path: next_path.clone(),
        })?;
        let credential = Credential::new(chain, key)?;
        write(
            &self.path("crt"),
            pem::encode_certs(credential.chain()).as_bytes(),
            0o644,
        )?;
        rename(&next_path, &self.path("key"))?;
        Ok(credential)
    }
}

/// What an edge keeps: `node.key` and `node.crt`, the cluster's root `ca.crt`, and `clock`, the last good time.
#[derive(Debug, Clone)]
pub struct NodeFiles {
    dir: PathBuf,
}

impl NodeFiles {
    /// The files in this directory, which is made if it is not there (0700).
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        make_dir(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The node's key and certificate.
    pub fn node(&self) -> CredentialFiles {
        CredentialFiles::new(&self.dir, "node")
    }

    /// The cluster's root; `None` before enrolment.
    pub fn root(&self) -> Result<Option<ClusterRoot>, FileError> {
        read_root(&self.dir.join("ca.crt"))
    }

    /// Keeps the root that enrolment found; before the node's own certificate, which is worth nothing without it.
    pub fn save_root(&self, root: &ClusterRoot) -> Result<(), FileError> {
        let text = pem::encode_certs(std::slice::from_ref(root.certificate()));
        write(&self.dir.join("ca.crt"), text.as_bytes(), 0o644)
    }

    /// The last time that was learned and kept. One that cannot be read counts as none: it only serves to bound.
    pub fn last_good_time(&self) -> Option<UnixTime> {
        let text = fs::read_to_string(self.dir.join("clock")).ok()?;
        text.trim().parse().ok().map(UnixTime::from_secs)
    }

    /// Keeps a good time, usually [`crate::TimeFloor::get`], for the next start.
    pub fn save_last_good_time(&self, time: UnixTime) -> Result<(), FileError> {
        write(&self.dir.join("clock"), format!("{}\n", time.secs()).as_bytes(), 0o644)
    }
}

/// What a gateway keeps: `root.key` and `root.crt`, of which the key may be moved to a safe place, `issuing.key` and
/// `issuing.crt`, `gateway.key` and `gateway.crt`.
#[derive(Debug, Clone)]
pub struct GatewayFiles {
    dir: PathBuf,
}

impl GatewayFiles {
    /// The files in this directory.
    pub fn open(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Makes a new cluster: root, issuing authority, and the gateway's certificate for these DNS names and IP addresses.
    /// Refuses a directory that holds a root already.
    pub fn init(dir: &Path, cluster: ClusterId, names: &[String], now: UnixTime) -> Result<Self, FileError> {
        make_dir(dir)?;
        let files = Self::open(dir);
        let (key_path, cert_path) = (files.dir.join("root.key"), files.dir.join("root.crt"));
        for path in [&key_path, &cert_path] {
            if path.exists() {
                return Err(FileError::Exists { path: path.clone() });
            }
        }
        let root = Root::create(cluster, now)?;
        write(&key_path, root.key().to_pem().as_bytes(), 0o600)?;
        let cert = pem::encode_certs(std::slice::from_ref(root.certificate().certificate()));
        write(&cert_path, cert.as_bytes(), 0o644)?;
        files.rotate_issuing(&root, now)?;
        files.renew_gateway(names, now)?;
        Ok(files)
    }

    /// The root with its key; an error if the key was moved away.
    pub fn root(&self) -> Result<Root, FileError> {
        let (key_path, cert_path) = (self.dir.join("root.key"), self.dir.join("root.crt"));
        let cert = read_root(&cert_path)?.ok_or(FileError::Missing { path: cert_path })?;
        let Some(key) = read_key(&key_path)? else {
            return Err(FileError::Missing { path: key_path });
        };
        Root::new(cert, key).map_err(|_| FileError::KeyMismatch { path: key_path })
    }

    /// The issuing authority.
    pub fn authority(&self) -> Result<Authority, FileError> {
        let files = CredentialFiles::new(&self.dir, "issuing");
        let credential = files.load()?.ok_or_else(|| FileError::Missing {
            path: files.path("key"),
        })?;
        Ok(Authority::new(credential)?)
    }

    /// The gateway's key and certificate.
    pub fn gateway(&self) -> Result<Credential, FileError> {
        let files = CredentialFiles::new(&self.dir, "gateway");
        files.load()?.ok_or_else(|| FileError::Missing {
            path: files.path("key"),
        })
    }

    /// Makes a new issuing authority below the root. Certificates of the one before stay valid; renew the gateway's next.
    pub fn rotate_issuing(&self, root: &Root, now: UnixTime) -> Result<Authority, FileError> {
        let files = CredentialFiles::new(&self.dir, "issuing");
        let key = files.begin()?;
        let chain = root.sign_issuing(&key.public()?, now)?;
        Ok(Authority::new(files.commit(chain)?)?)
    }

    /// Makes a new key and certificate for the gateway.
    pub fn renew_gateway(&self, names: &[String], now: UnixTime) -> Result<Credential, FileError> {
        let authority = self.authority()?;
        let files = CredentialFiles::new(&self.dir, "gateway");
        let key = files.begin()?;
        files.commit(authority.issue_gateway(&key.public()?, names, now)?)
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { path, source }
}

fn make_dir(dir: &Path) -> Result<(), FileError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed(dir))
}

/// A certificate or key is a few KiB; what is longer is something else.
const MAX_FILE: u64 = 64 * 1024;

fn open(path: &Path) -> Result<Option<fs::File>, FileError> {
    match fs::File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path)(error)),
    }
}

/// Reads a private key that only its owner may read.
fn read_key(path: &Path) -> Result<Option<PrivateKey>, FileError> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mode = file.metadata().map_err(failed(path))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::KeyPermissions {
            path: path.to_owned(),
            mode,
        });
    }
    let corrupt = |why| FileError::KeyCorrupt {
        path: path.to_owned(),
        why,
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed(path))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| corrupt(KeyError::Malformed))?;
    PrivateKey::from_pem(text).map(Some).map_err(corrupt)
}

fn read_certs(path: &Path) -> Result<Option<Vec<CertificateDer<'static>>>, FileError> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed(path))?;
    let certs = pem::decode_certs(&bytes);
    certs
        .map(Some)
        .ok_or_else(|| FileError::CertCorrupt { path: path.to_owned() })
}

fn read_root(path: &Path) -> Result<Option<ClusterRoot>, FileError> {
    let Some(certs) = read_certs(path)? else {
        return Ok(None);
    };
    let root = certs.into_iter().next().map(ClusterRoot::from_der);
    match root {
        Some(Ok(root)) => Ok(Some(root)),
        _ => Err(FileError::CertCorrupt { path: path.to_owned() }),
    }
}

/// Writes a file so that after a crash either the old content is there or the new, and the new once this has returned.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    // One that a crash left may have other permissions; a new file has ours from its first moment.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&temporary)(error)),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(failed(&temporary))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(failed(&temporary))?;
    rename(&temporary, path)
}

fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(failed(to))?;
    let dir = match to.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))
}

#[cfg(test)]
mod tests;
