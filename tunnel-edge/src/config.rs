//! `edge.toml`: what is written there ([`RawConfig`]) and what it means ([`Config`]).

mod amount;
mod budget;
mod listen;
mod proxy;
mod rate;

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tunnel_carrier::{CarrierKind, tls::Proxy};
use tunnel_daemon::{
    config::{ConfigError, Source},
    logs::LogConfig,
};
use tunnel_model::{AllowList, DEFAULT_SERVICES, GatewayAddr, HostPort, Offer, Protocol, Service, Subnet};
use tunnel_proto::{OfferError, check_offer};

pub use self::{
    budget::{Bytes, LinkBudget},
    listen::{Listener, RawListen, RawListens},
    proxy::ProxyConfig,
    rate::LinkRate,
};
use crate::proxies::ProxySetting;

/// Where the configuration is looked for when nobody says.
pub const DEFAULT_PATH: &str = "/etc/tunnel/edge.toml";

/// The file as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// The directory of keys, certificates and the agent's socket; relative to this file
    pub state: PathBuf,
    /// Addresses and ports that may be reached beside the services, such as "127.0.0.1:8000-8999"
    #[serde(default)]
    pub allow: AllowList,
    /// Subnets that this machine leads to, such as "10.42.3.0/24": all of their TCP and UDP ports may be reached
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advertise: Vec<Subnet>,
    /// Where the gateway is
    pub gateway: GatewayConfig,
    /// What can be reached by name; without any: ssh, kubelet and node-exporter on loopback
    #[serde(default, rename = "service", skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// The connection to the gateway
    #[serde(default, skip_serializing_if = "is_default")]
    pub link: LinkConfig,
    /// What the agent listens on
    #[serde(default, skip_serializing_if = "is_default")]
    pub listen: RawListens,
    /// A proxy for local clients, to services of the cloud side and of other edges; there is none without this table
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyConfig>,
    /// Logs
    #[serde(default, skip_serializing_if = "is_default")]
    pub log: LogConfig,
}

/// The `[gateway]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Addresses of one gateway, all tried at once; the first to answer wins
    #[schemars(length(min = 1))]
    pub addresses: Vec<GatewayAddr>,
}

/// The `[link]` table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LinkConfig {
    /// The only way to go: "quic" or "tls"; without it, QUIC where UDP gets through, else TLS
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carrier: Option<Carrier>,
    /// The local UDP port, for firewalls that want to know; 0 takes a free one and keeps it while the agent runs
    pub local_port: u16,
    /// The proxy on the way to the gateway where UDP does not get out: "http://HOST:PORT" or "socks5://HOST:PORT", with
    /// USER:PASSWORD@ before the host where it asks for them; "none" for no proxy; without it, the environment says
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub proxy: Option<ProxySetting>,
    /// What the link carries, such as "3mbit", or { up = "1mbit", down = "3mbit" }: both ends then send no faster, and what
    /// somebody waits for goes before what nobody does; without it, as fast as the link takes it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<LinkRate>,
    /// What the link may carry in a day of UTC, both ways; without it, all that it takes
    #[serde(skip_serializing_if = "is_default")]
    pub budget: LinkBudget,
}

/// A way to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// By UDP.
    Quic,
    /// By TCP.
    Tls,
}

impl From<Carrier> for CarrierKind {
    fn from(carrier: Carrier) -> Self {
        match carrier {
            Carrier::Quic => Self::Quic,
            Carrier::Tls => Self::Tls,
        }
    }
}

/// The configuration in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The directory of keys, certificates and the agent's socket.
    pub state: PathBuf,
    /// Where the gateway is; at least one.
    pub gateways: Vec<GatewayAddr>,
    /// What can be reached by name.
    pub services: Vec<Service>,
    /// What can be reached beside the services.
    pub allow: AllowList,
    /// Subnets that this machine leads to.
    pub advertise: Vec<Subnet>,
    /// The only way to go; none says whichever gets through.
    pub link_carrier: Option<Carrier>,
    /// The local UDP port; 0 takes a free one.
    pub local_port: u16,
    /// The proxy on the way to the gateway; none says that the environment counts.
    pub link_proxy: Option<ProxySetting>,
    /// What the link carries, where that is known.
    pub link_rate: Option<LinkRate>,
    /// What the link may carry in a day.
    pub link_budget: LinkBudget,
    /// Where metrics are served, a loopback address.
    pub metrics: Option<SocketAddr>,
    /// Listeners for services beyond the gateway.
    pub listeners: Vec<Listener>,
    /// The proxy for local clients.
    pub proxy: Option<ProxyConfig>,
    /// Logs.
    pub log: LogConfig,
}

impl Config {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with_text(path).map(|(config, _)| config)
    }

    /// Reads a file, and returns what is written in it too.
    pub fn load_with_text(path: &Path) -> Result<(Self, String), ConfigError> {
        let source = Source::read(path)?;
        Ok((Self::from_source(&source, path)?, source.text().to_owned()))
    }

    /// Reads what a file at `path` would say.
    pub fn from_text(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::from_source(&Source::from_text(path, text), path)
    }

    fn from_source(source: &Source, path: &Path) -> Result<Self, ConfigError> {
        let raw: RawConfig = source.parse()?;
        if raw.gateway.addresses.is_empty() {
            return Err(source.invalid("gateway.addresses", "there must be at least one"));
        }
        let offer = Offer {
            services: raw.services.clone(),
            subnets: raw.advertise.clone(),
        };
        check_offer(&offer).map_err(|error| {
            let key = match error {
                OfferError::Subnets(_) => "advertise",
                _ => "service",
            };
            source.invalid(key, error.to_string())
        })?;
        for (i, subnet) in raw.advertise.iter().enumerate() {
            if raw.advertise[..i].contains(subnet) {
                return Err(source.invalid("advertise", format!("{subnet} is there twice")));
            }
        }
        let mut names = HashSet::new();
        for (i, service) in raw.services.iter().enumerate() {
            if !names.insert(&service.name) {
                let key = format!("service[{i}].name");
                return Err(source.invalid(&key, format!("there is a service {} already", service.name)));
            }
        }
        for (i, service) in raw.services.iter().enumerate() {
            let key = if service.scrape { "scrape" } else { "compress" };
            let what = match service.protocol {
                Protocol::Udp if service.scrape || service.compress => "is for services by TCP",
                Protocol::Tcp if service.scrape && service.compress => {
                    "leaves nothing to compress; keep one of the two"
                }
                Protocol::Tcp | Protocol::Udp => continue,
            };
            return Err(source.invalid(&format!("service[{i}].{key}"), format!("{key} {what}")));
        }
        let (metrics, listeners) = raw.listen.check(source)?;
        if let Some(proxy) = &raw.proxy {
            let taken = listeners.iter().map(|listener| listener.listen).chain(metrics);
            proxy.check(source, taken)?;
        }
        if let (Some(Carrier::Quic), Some(ProxySetting::Through(_))) = (raw.link.carrier, &raw.link.proxy) {
            return Err(source.invalid("link.proxy", "a proxy is for TLS, and link.carrier is \"quic\""));
        }
        let beside = path.parent().unwrap_or(Path::new(""));
        Ok(Self {
            state: beside.join(&raw.state),
            gateways: raw.gateway.addresses,
            services: if raw.services.is_empty() {
                default_services()
            } else {
                raw.services
            },
            allow: raw.allow,
            advertise: raw.advertise,
            link_carrier: raw.link.carrier,
            local_port: raw.link.local_port,
            link_proxy: raw.link.proxy,
            link_rate: raw.link.rate,
            link_budget: raw.link.budget,
            metrics,
            listeners,
            proxy: raw.proxy,
            log: raw.log,
        })
    }

    /// The configuration with every default filled in, as a file would say it.
    pub fn to_raw(&self) -> RawConfig {
        RawConfig {
            state: self.state.clone(),
            allow: self.allow.clone(),
            advertise: self.advertise.clone(),
            gateway: GatewayConfig {
                addresses: self.gateways.clone(),
            },
            services: self.services.clone(),
            link: LinkConfig {
                carrier: self.link_carrier,
                local_port: self.local_port,
                proxy: self.link_proxy.clone(),
                rate: self.link_rate,
                budget: self.link_budget,
            },
            listen: RawListens::new(self.metrics, &self.listeners),
            proxy: self.proxy.clone(),
            log: self.log.clone(),
        }
    }

    /// Where the running agent answers its operator.
    pub fn socket(&self) -> PathBuf {
        self.state.join("agent.sock")
    }
}

/// The file that joining writes.
pub fn first_file(state: &Path, gateways: &[GatewayAddr], proxy: Option<&Proxy>) -> String {
    let quote = |text: String| toml::Value::String(text).to_string();
    let addresses: Vec<_> = gateways.iter().map(|address| quote(address.to_string())).collect();
    let defaults: Vec<_> = DEFAULT_SERVICES
        .iter()
        .map(|(name, port)| format!("{name} ({port})"))
        .collect();
    format!(
        "\
# What may be reached on this machine, beside the services.
allow = []
# Keys and certificates of this node.
state = {state}

[gateway]
addresses = [{addresses}]

# Without any service of your own, these on 127.0.0.1 are offered: {defaults}.
# [[service]]
# name = \"web\"
# target = \"127.0.0.1:8080\"
{link}",
        state = quote(state.display().to_string()),
        addresses = addresses.join(", "),
        link = proxy.map_or_else(String::new, |proxy| {
            let proxy = quote(proxy.to_secret_url());
            format!("\n# The way to the gateway where UDP does not get out.\n[link]\nproxy = {proxy}\n")
        }),
        defaults = defaults.join(", "),
    )
}

fn default_services() -> Vec<Service> {
    let service = |(name, port): (&str, u16)| {
        let target = HostPort::from_ip(Ipv4Addr::LOCALHOST.into(), port);
        name.parse().ok().map(|name| Service::new(name, target))
    };
    DEFAULT_SERVICES.into_iter().filter_map(service).collect()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use tunnel_daemon::config::Problem;
    use tunnel_model::{DenyList, Encoding};

    use super::*;

    #[test]
    fn what_joining_writes_can_be_read_and_offers_the_defaults() {
        let gateways = [
            "gw.example.com:7443".parse().unwrap(),
            "[2001:db8::1]:7443".parse().unwrap(),
        ];
        let text = first_file(Path::new("/var/lib/tunnel \"edge\""), &gateways, None);
        let config = parse(&text).unwrap();
        assert_eq!(config.gateways, gateways);
        assert_eq!(config.state, Path::new("/var/lib/tunnel \"edge\""));
        let offered: Vec<_> = config
            .services
            .iter()
            .map(|s| format!("{}={}", s.name, s.target))
            .collect();
        assert_eq!(
            offered,
            [
                "ssh=127.0.0.1:22",
                "kubelet=127.0.0.1:10250",
                "node-exporter=127.0.0.1:9100"
            ]
        );
    }

    #[test]
    fn what_joining_writes_names_the_proxy_that_it_went_through() {
        let proxy = "http://joe:p%40ss@p:3128".parse().unwrap();
        let text = first_file(Path::new("/s"), &["gw:1".parse().unwrap()], Some(&proxy));
        let config = parse(&text).unwrap();
        assert_eq!(config.link_proxy, Some(ProxySetting::Through(proxy)));
        // Whoever shows a configuration to somebody shows no password.
        let shown = toml::to_string_pretty(&config.to_raw()).unwrap();
        assert!(shown.contains("http://p:3128") && !shown.contains("ss@"), "{shown}");
    }

    #[test]
    fn services_of_ones_own_replace_the_defaults() {
        let config = parse(&format!(
            "{BASE}[[service]]\nname = \"web\"\ntarget = \"10.0.0.7:80\"\n"
        ))
        .unwrap();
        assert_eq!(config.services.len(), 1);
    }

    #[test]
    fn a_service_is_scraped_or_compressed_or_neither_and_never_by_udp() {
        let service = |more: &str| {
            parse(&format!(
                "{BASE}[[service]]\nname = \"web\"\ntarget = \"10.0.0.7:80\"\n{more}"
            ))
        };
        for (more, encoding) in [
            ("", Encoding::Raw),
            ("scrape = false\n", Encoding::Raw),
            ("scrape = true\n", Encoding::Scrapes),
            ("compress = true\n", Encoding::Compressed),
        ] {
            let config = service(more).unwrap();
            assert_eq!(config.services[0].encoding(), encoding, "{more}");
            let shown = toml::to_string_pretty(&config.to_raw()).unwrap();
            assert_eq!(parse(&shown).unwrap(), config);
        }
        for more in [
            "scrape = true\ncompress = true\n",
            "scrape = true\nprotocol = \"udp\"\n",
            "compress = true\nprotocol = \"udp\"\n",
        ] {
            assert!(service(more).is_err(), "{more}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same_configuration() {
        let config = parse(&format!(
            "allow = [\"127.0.0.1:8000-8999\"]\nadvertise = [\"10.42.3.7/24\"]\n{BASE}[link]\ncarrier = \"tls\"\nlocal_port = 4000\nproxy = \"socks5://p:1\"\nrate = \"3mbit\"\nbudget = {{ all = \"500MB\", bulk = \"1.5GiB\" }}\n"
        ))
        .unwrap();
        let shown = toml::to_string_pretty(&config.to_raw()).unwrap();
        assert_eq!(parse(&shown).unwrap(), config);
    }

    #[test]
    fn one_table_listens_for_metrics_and_a_list_for_services_too() {
        let service = "[[listen]]\nlisten = \"127.0.0.1:5000\"\nservice = \"registry\"\n";
        let web = "[[listen]]\nlisten = \"10.0.0.1:80\"\nservice = \"web.edge2\"\n";
        let config = parse(&format!(
            "{BASE}[[listen]]\nmetrics = \"127.0.0.1:9100\"\n{service}{web}"
        ))
        .unwrap();
        assert!(config.metrics.is_some());
        let listeners: Vec<_> = config
            .listeners
            .iter()
            .map(|l| format!("{} {}", l.listen, l.service))
            .collect();
        assert_eq!(listeners, ["127.0.0.1:5000 registry.cloud", "10.0.0.1:80 web.edge2"]);
        let shown = toml::to_string_pretty(&config.to_raw()).unwrap();
        assert_eq!(parse(&shown).unwrap(), config, "{shown}");
        let one = parse(&format!("{BASE}{service}")).unwrap();
        assert_eq!(parse(&toml::to_string_pretty(&one.to_raw()).unwrap()).unwrap(), one);
    }

    /// T3
    #[test]
    fn t3_a_proxy_is_there_when_it_is_written_and_on_loopback_unless_that_is_written_too() {
        assert_eq!(parse(BASE).unwrap().proxy, None);
        let bare = parse(&format!("{BASE}[proxy]\n")).unwrap();
        let proxy = bare.proxy.clone().unwrap();
        assert_eq!(proxy.listen, "127.0.0.1:3128".parse().unwrap());
        assert_eq!((proxy.zone.as_str(), proxy.deny), ("tunnel", DenyList::default()));
        let all = parse(&format!(
            "{BASE}[proxy]\nlisten = \"10.0.0.1:3128\"\nzone = \"edge.example\"\ndeny = [\"*.edge2\", \"*:25\"]\n"
        ))
        .unwrap();
        for config in [bare, all] {
            let shown = toml::to_string_pretty(&config.to_raw()).unwrap();
            assert_eq!(parse(&shown).unwrap(), config, "{shown}");
        }
    }

    #[test]
    fn tcp_and_udp_of_one_port_are_two_listeners() {
        let listen = "[[listen]]\nlisten = \"127.0.0.1:53\"\nservice = \"dns\"\n";
        let config = parse(&format!("{BASE}{listen}protocol = \"udp\"\n{listen}")).unwrap();
        let protocols: Vec<_> = config.listeners.iter().map(|listener| listener.protocol).collect();
        assert_eq!(protocols, [Protocol::Udp, Protocol::Tcp]);
        let shown = toml::to_string_pretty(&config.to_raw()).unwrap();
        assert_eq!(parse(&shown).unwrap(), config, "{shown}");
    }

    #[test]
    fn a_relative_state_directory_lies_beside_the_file() {
        let config = parse("state = \"state\"\n[gateway]\naddresses = [\"gw:1\"]\n").unwrap();
        assert_eq!(config.state, Path::new("/etc/tunnel/state"));
    }

    /// R6
    #[test]
    fn what_cannot_be_meant_is_refused_with_its_line() {
        let twice = "[[service]]\nname = \"a\"\ntarget = \"h:1\"\n";
        for (text, key, line) in [
            (
                "state = \"s\"\n[gateway]\naddresses = []\n".to_owned(),
                "gateway.addresses",
                3,
            ),
            (format!("{BASE}{twice}{twice}"), "service[1].name", 8),
            (
                format!("advertise = [\"10.42.3.0/24\", \"10.42.3.9/24\"]\n{BASE}"),
                "advertise",
                1,
            ),
            (
                format!("{BASE}[listen]\nmetrics = \"0.0.0.0:9100\"\n"),
                "listen.metrics",
                5,
            ),
            (
                format!("{BASE}[[listen]]\nlisten = \"127.0.0.1:1\"\n"),
                "listen[0].listen",
                5,
            ),
            (
                format!("{BASE}[[listen]]\nlisten = \"127.0.0.1:1\"\nservice = \"10.0.0.1:80\"\n"),
                "listen[0].service",
                6,
            ),
            (
                format!("{BASE}[listen]\nservice = \"web.edge2\"\n"),
                "listen.service",
                5,
            ),
            (format!("{BASE}[listen]\nprotocol = \"udp\"\n"), "listen.protocol", 5),
            (
                format!(
                    "{BASE}{}",
                    "[[listen]]\nlisten = \"127.0.0.1:53\"\nservice = \"dns\"\nprotocol = \"udp\"\n".repeat(2)
                ),
                "listen[1].listen",
                9,
            ),
            (
                format!("{BASE}[link]\ncarrier = \"quic\"\nproxy = \"http://p:3128\"\n"),
                "link.proxy",
                6,
            ),
            (
                format!("{BASE}[proxy]\ndeny = [\"*.edge2\", \"edge2\"]\n"),
                "proxy.deny[1]",
                5,
            ),
            (
                format!("{BASE}[listen]\nmetrics = \"127.0.0.1:3128\"\n[proxy]\n"),
                "proxy.listen",
                6,
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert_eq!((error.problem(), error.key()), (Problem::InvalidValue, Some(key)));
            assert_eq!(error.position().map(|p| p.line), Some(line), "{text}");
        }
        for carrier in ["\"tcp\"", "\"\"", "[\"tls\"]"] {
            let error = parse(&format!("{BASE}[link]\ncarrier = {carrier}\n")).unwrap_err();
            assert_eq!(error.position().map(|p| p.line), Some(5), "{error}");
        }
        let misspelt = parse(&format!("{BASE}[listen]\nmetric = \"127.0.0.1:1\"\n")).unwrap_err();
        assert_eq!(misspelt.problem(), Problem::UnknownKey);
    }

    const BASE: &str = "state = \"/s\"\n[gateway]\naddresses = [\"gw:1\"]\n";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        let path = Path::new("/etc/tunnel/edge.toml");
        Config::from_source(&Source::from_text(path, text), path)
    }
}
