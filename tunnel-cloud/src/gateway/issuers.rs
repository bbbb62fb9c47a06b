//! The issuers of tokens, when the configuration names others.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tunnel_daemon::{error::CliError, readiness::Readiness, shutdown::Tasks};

use super::check_issuers;
use crate::{
    config::Config,
    dial::Gateway,
    oidc::Oidc,
    reload::{Applier, Change},
    users::Users,
};

/// Puts other issuers in force.
#[derive(Clone)]
pub(super) struct Issuers {
    /// Those in force.
    current: Arc<Mutex<Arc<Oidc>>>,
    gateway: Weak<Gateway>,
    users: Arc<Users>,
    readiness: Readiness,
    tasks: Tasks,
}

impl Issuers {
    pub(super) fn new(
        current: Arc<Oidc>,
        gateway: &Arc<Gateway>,
        users: Arc<Users>,
        readiness: &Readiness,
        tasks: &Tasks,
    ) -> Self {
        Self {
            current: Arc::new(Mutex::new(current)),
            gateway: Arc::downgrade(gateway),
            users,
            readiness: readiness.clone(),
            tasks: tasks.clone(),
        }
    }

    fn put_in_force(&self, next: Oidc) {
        let next = Arc::new(next);
        // One step; a panic elsewhere leaves nothing half done.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, Arc::clone(&next));
        before.stop();
        next.start(&self.readiness, &self.tasks);
        if let Some(gateway) = self.gateway.upgrade() {
            gateway.set_issuers(next);
        }
    }
}

impl Applier for Issuers {
    fn keys(&self) -> &'static [&'static str] {
        &["oidc"]
    }

    fn prepare(&self, new: &Config) -> Result<Change, CliError> {
        check_issuers(new, &self.users)?;
        let current = Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner));
        let (issuers, next) = (self.clone(), current.follow(&new.oidc)?);
        Ok(Box::new(move || issuers.put_in_force(next)))
    }
}
