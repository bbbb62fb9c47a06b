//! The configuration file read again while the gateway runs.
//!
//! Every part that can change what it does without touching live streams is an [`Applier`] and names the keys that it
//! answers for. A changed key that nobody answers for needs a restart, and is reported as such. First every part
//! prepares, which may fail; only when all of them could, and the whole file is good, does anything change.

mod appliers;
mod diff;

use std::{path::PathBuf, sync::Arc};

use serde_json::Value;
use tokio::sync::Mutex;
use tracing::{info, warn};
use tunnel_daemon::error::{CliError, Exit};

use crate::{config::Config, dial::Gateway};

/// A change that is ready and cannot fail any more.
pub type Change = Box<dyn FnOnce() + Send>;

/// A part of the gateway that takes new configuration while it runs.
pub trait Applier: Send + Sync + 'static {
    /// The keys it answers for, such as `limits`; a key stands for all below it.
    fn keys(&self) -> &'static [&'static str];

    /// Makes ready for this configuration, without any effect yet. Called only if one of the keys has changed.
    ///
    /// # Errors
    /// It cannot be; the whole file is then refused.
    fn prepare(&self, new: &Config) -> Result<Change, CliError>;
}

/// What became of a file that was read again.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reloaded {
    /// The keys that changed and are in effect.
    pub applied: Vec<String>,
    /// The keys whose change takes effect with the next start.
    pub needs_restart: Vec<String>,
}

/// Reads the file again.
pub struct Reloader {
    file: PathBuf,
    appliers: Vec<Box<dyn Applier>>,
    /// What is in effect. Held across a reload, so that there is one at a time.
    effective: Mutex<Value>,
}

impl Reloader {
    /// For a gateway that was started with this configuration.
    pub fn new(config: &Config, gateway: Arc<Gateway>) -> Result<Self, CliError> {
        Self::with(config, appliers::all(gateway))
    }

    fn with(config: &Config, appliers: Vec<Box<dyn Applier>>) -> Result<Self, CliError> {
        Ok(Self {
            file: config.file.clone(),
            appliers,
            effective: Mutex::new(values(config)?),
        })
    }

    /// Adds a part that takes new configuration.
    pub fn add(&mut self, applier: impl Applier) {
        self.appliers.push(Box::new(applier));
    }

    /// Reads the file, and applies what can be applied. The log says so.
    ///
    /// # Errors
    /// The file is not good, or a part cannot take it: everything stays as it was.
    pub async fn reload(&self) -> Result<Reloaded, CliError> {
        let mut effective = self.effective.lock().await;
        let done = Config::load(&self.file)
            .map_err(CliError::from)
            .and_then(|new| self.apply(&mut effective, &new));
        match &done {
            Ok(done) => {
                let (applied, needs_restart) = (done.applied.join(","), done.needs_restart.join(","));
                info!(applied, needs_restart, "configuration read again");
            }
            Err(error) => warn!(%error, "configuration refused; the old one stays in effect"),
        }
        done
    }

    fn apply(&self, effective: &mut Value, new: &Config) -> Result<Reloaded, CliError> {
        let wanted = values(new)?;
        let changed = diff::changed(effective, &wanted);
        let answers = |applier: &dyn Applier, key: &str| applier.keys().iter().any(|own| diff::is_below(key, own));
        let mut changes = Vec::new();
        for applier in &self.appliers {
            if changed.iter().any(|key| answers(applier.as_ref(), key)) {
                changes.push(applier.prepare(new)?);
            }
        }
        for change in changes {
            change();
        }
        let (applied, needs_restart): (Vec<_>, Vec<_>) = changed
            .into_iter()
            .partition(|key| self.appliers.iter().any(|applier| answers(applier.as_ref(), key)));
        for key in &applied {
            diff::copy(key, &wanted, effective);
        }
        Ok(Reloaded { applied, needs_restart })
    }
}

/// A configuration as a tree of values.
fn values(config: &Config) -> Result<Value, CliError> {
    serde_json::to_value(config).map_err(|error| {
        let message = format!("the configuration cannot be compared: {error}");
        CliError::new(Exit::Failure, "internal", message)
    })
}

#[cfg(test)]
mod tests;
