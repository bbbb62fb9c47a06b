//! The gateway's configuration file: as written ([`RawConfig`]), and as meant ([`Config`]).

mod raw;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Serialize;
use tunnel_daemon::{
    config::{ConfigError, Source},
    listen::require_local,
    logs::LogConfig,
};
use tunnel_identity::JoinToken;
use tunnel_model::{GatewayAddr, Zone};

use crate::oidc::{self, config::OidcIssuer};

pub use raw::{RawConfig, RawGateway, RawLimits, RawListen};

/// What a gateway runs with. Nothing is optional; paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// The state directory.
    pub state: PathBuf,
    /// The suffix of the nodes' names.
    pub zone: Zone,
    /// The Unix socket for commands.
    pub admin: PathBuf,
    /// Where the gateway listens.
    pub listen: Listen,
    /// What edges are told about it.
    pub gateway: Gateway,
    /// Identity providers whose tokens are taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub oidc: Vec<OidcIssuer>,
    /// How it logs.
    pub log: LogConfig,
    /// What it allows itself and others.
    pub limits: RawLimits,
}

/// Where a gateway listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listen {
    /// For edges: UDP for QUIC.
    pub public: SocketAddr,
    /// For users: HTTP proxy and SOCKS5, with credentials.
    pub proxy: SocketAddr,
    /// For monitoring: metrics and health, without credentials, hence on loopback.
    pub metrics: SocketAddr,
}

/// What edges are told about a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gateway {
    /// Where they reach it, in order of preference; 1 to [`JoinToken::MAX_GATEWAYS`].
    pub advertise: Vec<GatewayAddr>,
}

impl Config {
    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let source = Source::read(path)?;
        let base = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self::new(source.parse()?, &source, base.parent().unwrap_or(Path::new("/")))
    }

    /// What a file means whose relative paths start at `base`.
    fn new(raw: RawConfig, source: &Source, base: &Path) -> Result<Self, ConfigError> {
        let state = base.join(raw.state);
        let advertised = raw.gateway.advertise.len();
        if !(1..=JoinToken::MAX_GATEWAYS).contains(&advertised) {
            let max = JoinToken::MAX_GATEWAYS;
            let reason = format!("1 to {max} addresses are needed, at which edges reach this gateway");
            return Err(source.invalid("gateway.advertise", reason));
        }
        if let Err(error) = require_local(raw.listen.metrics) {
            let hint = "use a loopback address such as 127.0.0.1:7090".to_owned();
            return Err(source.invalid("listen.metrics", error).with_hint(Some(hint)));
        }
        Ok(Self {
            admin: base.join(raw.admin.unwrap_or_else(|| state.join("admin.sock"))),
            state,
            zone: raw.zone,
            listen: Listen {
                public: raw.listen.public,
                proxy: raw.listen.proxy,
                metrics: raw.listen.metrics,
            },
            gateway: Gateway {
                advertise: raw.gateway.advertise,
            },
            oidc: oidc::config::issuers(raw.oidc, source, base)?,
            log: raw.log,
            limits: raw.limits,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_a_default_and_relative_paths_start_at_the_file() {
        let config = read("state = \"state\"\ngateway.advertise = [\"gw.example.com:7000\"]\n").unwrap();
        insta::assert_snapshot!(toml::to_string(&config).unwrap(), @r#"
        state = "/etc/tunnel/state"
        zone = "tunnel"
        admin = "/etc/tunnel/state/admin.sock"

        [listen]
        public = "0.0.0.0:7000"
        proxy = "127.0.0.1:7080"
        metrics = "127.0.0.1:7090"

        [gateway]
        advertise = ["gw.example.com:7000"]

        [log]
        level = "info"
        format = "text"

        [limits]
        nodes = 20000
        streams_per_node = 1024
        proxy_connections = 16384
        "#);
    }

    #[test]
    fn absolute_paths_stay() {
        let config = read("state = \"/s\"\nadmin = \"/run/a.sock\"\ngateway.advertise = [\"a:1\"]\n").unwrap();
        assert_eq!((config.state, config.admin), ("/s".into(), "/run/a.sock".into()));
    }

    /// R6
    #[test]
    fn what_cannot_be_meant_is_refused_with_its_line() {
        let refused = |text: &str| read(text).unwrap_err().to_string();
        insta::assert_snapshot!(
            refused("state = \"s\"\n[gateway]\nadvertise = []\n"),
            @r#"cloud.toml:3:13: key "gateway.advertise": 1 to 8 addresses are needed, at which edges reach this gateway"#
        );
        insta::assert_snapshot!(
            refused("state = \"s\"\ngateway.advertise = [\"a:1\"]\n[listen]\nmetrics = \"0.0.0.0:7090\"\n"),
            @r#"cloud.toml:4:11: key "listen.metrics": 0.0.0.0:7090 can be reached from other machines, and this listener asks for no credential"#
        );
        insta::assert_snapshot!(
            refused("state = \"s\"\ngateway.advertise = [\"gw.example.com\"]\n"),
            @r#"cloud.toml:2:22: key "gateway.advertise[0]": "gw.example.com" has no port; write HOST:PORT"#
        );
        insta::assert_snapshot!(
            refused("state = \"s\"\ngateway.advertise = [\"a:1\"]\nlimits.nodes = 0\n"),
            @r#"cloud.toml:3:16: key "limits.nodes": expected a nonzero u32, found integer `0`"#
        );
    }

    fn read(text: &str) -> Result<Config, ConfigError> {
        let source = Source::from_text("cloud.toml", text);
        Config::new(source.parse()?, &source, Path::new("/etc/tunnel"))
    }
}
