//! The gateway's configuration file: as written ([`RawConfig`]), and as meant ([`Config`]).

mod addresses;
mod forward;
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

use crate::{
    audit::{AuditConfig, AuditOutput},
    oidc::{self, config::OidcIssuer},
};

pub use addresses::Addresses;
pub use forward::{Forward, RawForward, parse_target};
pub use raw::{CloudService, RawAudit, RawConfig, RawGateway, RawLimits, RawListen};

/// What a gateway runs with. Nothing is optional; paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// The file that it was read from.
    #[serde(skip)]
    pub file: PathBuf,
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
    /// Its ports that always lead to the same target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forward: Vec<Forward>,
    /// Identity providers whose tokens are taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub oidc: Vec<OidcIssuer>,
    /// How it logs.
    pub log: LogConfig,
    /// Where its audit log is.
    pub audit: AuditConfig,
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
    /// For users: TLS whose server name leads to a node.
    pub sni: Addresses,
    /// For users: HTTP whose `Host` leads to a node.
    pub http: Addresses,
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
        let forward = forwards(raw.forward, source)?;
        if !raw.audit.outputs.contains(&AuditOutput::File) {
            let hint = "syslog and journald are copies; the log itself is in its files".to_owned();
            return Err(source
                .invalid("audit.outputs", "\"file\" is missing")
                .with_hint(Some(hint)));
        }
        Ok(Self {
            file: source.path().to_owned(),
            audit: AuditConfig {
                path: base.join(raw.audit.path.unwrap_or_else(|| state.join("audit"))),
                max_mib: raw.audit.max_mib.get(),
                keep: raw.audit.keep.get(),
                outputs: raw.audit.outputs,
            },
            admin: base.join(raw.admin.unwrap_or_else(|| state.join("admin.sock"))),
            state,
            zone: raw.zone,
            listen: Listen {
                public: raw.listen.public,
                proxy: raw.listen.proxy,
                metrics: raw.listen.metrics,
                sni: raw.listen.sni,
                http: raw.listen.http,
            },
            gateway: Gateway {
                advertise: raw.gateway.advertise,
            },
            forward,
            oidc: oidc::config::issuers(raw.oidc, source, base)?,
            log: raw.log,
            limits: raw.limits,
            services: raw.services,
            rules: raw.rules,
        })
    }
}

fn forwards(raw: Vec<RawForward>, source: &Source) -> Result<Vec<Forward>, ConfigError> {
    let mut all: Vec<Forward> = Vec::with_capacity(raw.len());
    for (index, raw) in raw.into_iter().enumerate() {
        let invalid = |(key, why): (&str, String)| source.invalid(&format!("forward[{index}].{key}"), why);
        let forward = Forward::new(raw).map_err(invalid)?;
        let same = |other: &Forward| other.listen == forward.listen && other.protocol == forward.protocol;
        if forward.listen.port() != 0 && all.iter().any(same) {
            let why = format!("another [[forward]] listens on {} already", forward.listen);
            return Err(invalid(("listen", why)));
        }
        all.push(forward);
    }
    Ok(all)
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
        sni = []
        http = []

        [gateway]
        advertise = ["gw.example.com:7000"]

        [log]
        level = "info"
        format = "text"

        [audit]
        path = "/etc/tunnel/state/audit"
        max_mib = 64
        keep = 16
        outputs = ["file"]

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

    #[test]
    fn a_way_in_listens_at_one_address_or_at_several() {
        let config = read(
            "state = \"s\"\ngateway.advertise = [\"a:1\"]\nlisten.sni = \"0.0.0.0:10250\"\nlisten.http = [\"127.0.0.1:80\", \"[::1]:80\"]\n",
        );
        let listen = config.unwrap().listen;
        assert_eq!((listen.sni.0.len(), listen.http.0.len()), (1, 2));
    }

    #[test]
    fn a_forward_says_where_it_listens_and_where_it_leads() {
        let config = read(
            "state = \"s\"\ngateway.advertise = [\"a:1\"]\n[[forward]]\nlisten = \"0.0.0.0:5432\"\nnode = \"edge1\"\n\
             target = \"10.42.3.7:5432\"\nas = \"user:alice\"\n[[forward]]\nlisten = \"0.0.0.0:5432\"\nnode = \"edge1\"\ntarget = \"53\"\nprotocol = \"udp\"\n",
        );
        let shown = toml::to_string(&config.unwrap().forward[0]).unwrap();
        insta::assert_snapshot!(shown, @r#"
        listen = "0.0.0.0:5432"
        node = "edge1"
        target = "tcp:10.42.3.7:5432"
        protocol = "tcp"
        as = "user:alice"
        "#);
    }

    /// R6
    #[test]
    fn a_forward_that_cannot_be_meant_is_refused_with_its_line() {
        let refused = |text: &str| {
            let base = "state = \"s\"\ngateway.advertise = [\"a:1\"]\n[[forward]]\nlisten = \"127.0.0.1:1\"\nnode = \"edge1\"\n";
            read(&format!("{base}{text}")).unwrap_err().to_string()
        };
        insta::assert_snapshot!(refused("target = \"web\"\n"), @r#"cloud.toml:6:10: key "forward[0].target": "web" is no target; write PORT, udp:PORT, service:NAME, IP:PORT or udp:IP:PORT"#);
        insta::assert_snapshot!(refused("target = \"udp:53\"\nprotocol = \"tcp\"\n"), @r#"cloud.toml:6:10: key "forward[0].target": "udp:53" is a udp target, and the protocol is to be tcp"#);
        insta::assert_snapshot!(refused("target = \"22\"\nas = \"alice\"\n"), @r#"cloud.toml:7:6: key "forward[0].as": "alice" is no user; write user:NAME"#);
        insta::assert_snapshot!(
            refused("target = \"22\"\n[[forward]]\nlisten = \"127.0.0.1:1\"\nnode = \"edge2\"\ntarget = \"23\"\n"),
            @r#"cloud.toml:8:10: key "forward[1].listen": another [[forward]] listens on 127.0.0.1:1 already"#
        );
        insta::assert_snapshot!(read("state = \"s\"\ngateway.advertise = [\"a:1\"]\nlisten.sni = \"edge1\"\n").unwrap_err().to_string(), @r#"cloud.toml:3:14: key "listen.sni": "edge1" is not IP:PORT"#);
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
