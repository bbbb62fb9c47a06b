//! The parts of the gateway that take new configuration while it runs.

use std::sync::Arc;

use tunnel_daemon::{error::CliError, logs};

use super::{Applier, Change};
use crate::{config::Config, dial::Gateway};

pub(super) fn all(gateway: Arc<Gateway>) -> Vec<Box<dyn Applier>> {
    vec![
        Box::new(LogLevel),
        Box::new(Limits(Arc::clone(&gateway))),
        Box::new(Services(Arc::clone(&gateway))),
        Box::new(Rules(gateway)),
    ]
}

struct LogLevel;

impl Applier for LogLevel {
    fn keys(&self) -> &'static [&'static str] {
        &["log.level"]
    }

    fn prepare(&self, new: &Config) -> Result<Change, CliError> {
        let level = logs::Level::read(&new.log)?;
        Ok(Box::new(move || level.apply()))
    }
}

struct Limits(Arc<Gateway>);

impl Applier for Limits {
    fn keys(&self) -> &'static [&'static str] {
        &[
            "limits.streams_per_node",
            "limits.streams_per_principal",
            "limits.principal_opens_per_second",
            "limits.node_opens_per_second",
            "limits.principal_bytes_per_second",
            "limits.node_bytes_per_second",
        ]
    }

    fn prepare(&self, new: &Config) -> Result<Change, CliError> {
        let (gateway, limits) = (Arc::clone(&self.0), new.limits.clone());
        Ok(Box::new(move || gateway.set_limits(&limits)))
    }
}

/// The services of the cloud side.
struct Services(Arc<Gateway>);

impl Applier for Services {
    fn keys(&self) -> &'static [&'static str] {
        &["service"]
    }

    fn prepare(&self, new: &Config) -> Result<Change, CliError> {
        let (gateway, services) = (Arc::clone(&self.0), new.services.clone());
        Ok(Box::new(move || {
            gateway.set_services(services);
        }))
    }
}

/// Who may reach what.
struct Rules(Arc<Gateway>);

impl Applier for Rules {
    fn keys(&self) -> &'static [&'static str] {
        &["rule"]
    }

    fn prepare(&self, new: &Config) -> Result<Change, CliError> {
        let (gateway, rules) = (Arc::clone(&self.0), new.rules.clone());
        Ok(Box::new(move || gateway.set_rules(rules)))
    }
}
