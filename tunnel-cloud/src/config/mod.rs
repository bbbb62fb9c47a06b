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
use tunnel_model::{GatewayAddr, Rule, Zone};

pub use raw::{CloudService, RawConfig, RawGateway, RawLimits, RawListen};

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
    /// How it logs.
    pub log: LogConfig,
    /// What it allows itself and others.
    pub limits: RawLimits,
    /// Services of the cloud side.
    #[serde(rename = "service")]
    pub services: Vec<CloudService>,
    /// Who may reach what.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
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
        for (i, service) in raw.services.iter().enumerate() {
            if raw.services.iter().take(i).any(|other| other.name == service.name) {
                let reason = format!("there is a service {} already", service.name);
                return Err(source.invalid(&format!("service[{i}].name"), reason));
            }
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
            log: raw.log,
            limits: raw.limits,
            services: raw.services,
            rules: raw.rules,
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
        service = []
        rule = []

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
        streams_per_principal = 8192
        principal_opens_per_second = 5000
        node_opens_per_second = 5000
        "#);
    }

    #[test]
    fn absolute_paths_stay() {
        let config = read("state = \"/s\"\nadmin = \"/run/a.sock\"\ngateway.advertise = [\"a:1\"]\n").unwrap();
        assert_eq!((config.state, config.admin), ("/s".into(), "/run/a.sock".into()));
    }

    #[test]
    fn rules_are_read_in_their_order() {
        let config = read(
            "state = \"s\"\ngateway.advertise = [\"a:1\"]\n\
             [[rule]]\nsubjects = [\"user:alice\", \"cidr:10.0.0.0/8\"]\nnodes = \"site=hz\"\ntargets = [\"service:web\"]\n\
             [[rule]]\nsubjects = [\"group:ops\"]\nnodes = [\"a\", \"hz-*\"]\ntargets = [\"*\", \"udp:53\"]\n",
        );
        let rules: Vec<_> = config.unwrap().rules.iter().map(ToString::to_string).collect();
        assert_eq!(
            rules,
            [
                "user:alice, cidr:10.0.0.0/8 -> site=hz: service:web",
                "group:ops -> a, hz-*: *, udp:53"
            ]
        );
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
        let twice = "[[service]]\nname = \"web\"\ntarget = \"h:1\"\n".repeat(2);
        insta::assert_snapshot!(
            refused(&format!("state = \"s\"\ngateway.advertise = [\"a:1\"]\n{twice}")),
            @r#"cloud.toml:7:8: key "service[1].name": there is a service web already"#
        );
        let rule = |text: &str| {
            refused(&format!(
                "state = \"s\"\ngateway.advertise = [\"a:1\"]\n[[rule]]\n{text}\n"
            ))
        };
        insta::assert_snapshot!(
            rule("subjects = [\"alice\"]\nnodes = \"*\"\ntargets = [\"*\"]"),
            @r#"cloud.toml:4:13: key "rule[0].subjects[0]": "alice" is not a subject: it does not say of what kind it is; write user:NAME, group:NAME, cidr:SUBNET, node:NAME or node:KEY=VALUE"#
        );
        insta::assert_snapshot!(
            rule("subjects = [\"user:a\"]\nnodes = \"site=\"\ntargets = [\"*\", \"tcp:0\"]"),
            @r#"cloud.toml:6:17: key "rule[0].targets[1]": "tcp:0" is no target of a rule: its port is not a number from 1 to 65535; write *, tcp:PORTS, udp:PORTS, service:NAME, SUBNET or tcp:SUBNET:PORTS"#
        );
        insta::assert_snapshot!(rule("subjects = [\"user:a\"]\nnodes = \"*\"\ntargets = []"), @r#"cloud.toml:6:11: key "rule[0].targets": the list `targets` is empty, so the rule would never allow anything; name at least one"#);
    }

    fn read(text: &str) -> Result<Config, ConfigError> {
        let source = Source::from_text("cloud.toml", text);
        Config::new(source.parse()?, &source, Path::new("/etc/tunnel"))
    }
}
