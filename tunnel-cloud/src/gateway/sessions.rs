//! The live sessions as the admin API sees them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tunnel_carrier::CarrierKind;
use tunnel_daemon::error::CliError;
use tunnel_identity::UnixTime;
use tunnel_model::{NodeId, Reason, Refusal};

use super::ways::Ways;
use crate::{
    admin::{
        OpenForward, Sessions,
        api::{CreateForward, GatewayStatus, Listening},
    },
    tunnel::Registry,
};

pub(super) struct LiveSessions {
    registry: Arc<Registry>,
    listening: Listening,
    ways: Ways,
    started: UnixTime,
}

impl LiveSessions {
    pub(super) fn new(registry: Arc<Registry>, listening: Listening, ways: Ways) -> Self {
        Self {
            registry,
            listening,
            ways,
            started: SystemTime::now().into(),
        }
    }
}

#[async_trait]
impl Sessions for LiveSessions {
    async fn ping(&self, node: NodeId) -> Result<Duration, Refusal> {
        match self.registry.get(node) {
            Some(tunnel) => tunnel.ping().await,
            None => Err(Refusal::new(Reason::NodeOffline, "the node has no session")),
        }
    }

    fn carrier(&self, node: NodeId) -> Option<CarrierKind> {
        self.registry.get(node)?.status().map(|status| status.carrier)
    }

    fn disconnect(&self, node: NodeId, why: Reason) {
        let refusal = match why {
            Reason::Revoked => crate::tunnel::revoked(),
            _ => Refusal::new(why, "an operator ended the session"),
        };
        self.registry.disconnect(node, &refusal);
    }

    fn forward(&self, wanted: &CreateForward) -> Result<OpenForward, CliError> {
        self.ways.open(wanted)
    }

    fn status(&self) -> GatewayStatus {
        GatewayStatus {
            started_at: self.started.to_string(),
            listen: self.ways.listening(&self.listening),
            streams: self.registry.streams(),
        }
    }
}
