//! What of the configuration a running agent takes anew.

use tunnel_model::{DenyList, GatewayAddr, Offer};

use crate::{
    config::{Config, LinkRate},
    targets::Targets,
};

/// What is in force, and how often it has changed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the gateway is.
    pub gateways: Vec<GatewayAddr>,
    /// What may be reached.
    pub targets: Targets,
    /// What local clients may not ask the proxy for.
    pub deny: DenyList,
    /// What the link carries, as far as somebody has said that.
    pub rate: LinkRate,
    /// Rises with every change.
    pub generation: u64,
    /// Rises with every change after which the present session is not the right one.
    pub(super) epoch: u64,
}

impl Settings {
    pub(super) fn new(config: &Config) -> Self {
        let targets = Targets::new(config.services.clone(), config.allow.clone());
        Self {
            gateways: config.gateways.clone(),
            targets: targets.advertise(config.advertise.clone()),
            deny: config
                .proxy
                .as_ref()
                .map(|proxy| proxy.deny.clone())
                .unwrap_or_default(),
            rate: config.link_rate.unwrap_or_default(),
            generation: 0,
            epoch: 0,
        }
    }

    /// The same configuration's settings after these.
    pub(super) fn follow(&self, config: &Config, reconnect: bool) -> Self {
        Self {
            generation: self.generation + 1,
            epoch: self.epoch + u64::from(reconnect),
            ..Self::new(config)
        }
    }

    /// What the gateway is told.
    pub(super) fn offer(&self) -> Offer {
        Offer {
            services: self.targets.services().to_vec(),
            subnets: self.targets.subnets().to_vec(),
        }
    }
}
