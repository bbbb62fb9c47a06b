//! What differs between two configurations, and what of it a running agent can take.

use super::commit::Risk;
use crate::config::{Config, ProxyConfig};

/// The differences, by the keys of `edge.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// What a running agent takes.
    pub applied: Vec<&'static str>,
    /// What it takes when it is started again.
    pub restart: Vec<&'static str>,
}

impl Change {
    /// Compares what is in force with what is to be.
    pub(super) fn between(old: &Config, new: &Config) -> Self {
        let differ =
            |keys: &[(&'static str, bool)]| keys.iter().filter(|(_, same)| !same).map(|(key, _)| *key).collect();
        // One that comes or goes differs as a whole.
        let proxy = |same: fn(&ProxyConfig, &ProxyConfig) -> bool| match (&old.proxy, &new.proxy) {
            (Some(old), Some(new)) => same(old, new),
            _ => true,
        };
        Self {
            applied: differ(&[
                ("allow", old.allow == new.allow),
                ("advertise", old.advertise == new.advertise),
                ("gateway.addresses", old.gateways == new.gateways),
                ("service", old.services == new.services),
                ("link.rate", old.link_rate == new.link_rate),
                ("link.budget", old.link_budget == new.link_budget),
                ("proxy.deny", proxy(|old, new| old.deny == new.deny)),
                ("log.level", old.log.level == new.log.level),
            ]),
            restart: differ(&[
                ("state", old.state == new.state),
                ("link.carrier", old.link_carrier == new.link_carrier),
                ("link.local_port", old.local_port == new.local_port),
                ("link.proxy", old.link_proxy == new.link_proxy),
                ("listen.metrics", old.metrics == new.metrics),
                ("listen", old.listeners == new.listeners),
                ("proxy", old.proxy.is_some() == new.proxy.is_some()),
                ("proxy.listen", proxy(|old, new| old.listen == new.listen)),
                ("proxy.zone", proxy(|old, new| old.zone == new.zone)),
                ("log.format", old.log.format == new.log.format),
            ]),
        }
    }
}

/// What the change of one configuration to another puts at risk. A rule or service that is not there any more in the very
/// same words counts as taken away, even if another one covers it.
pub(super) fn risk(old: &Config, new: &Config) -> Risk {
    let kept = old.allow.rules().iter().all(|rule| new.allow.rules().contains(rule))
        && old.advertise.iter().all(|subnet| new.advertise.contains(subnet))
        && old.services.iter().all(|service| new.services.contains(service));
    if old.gateways != new.gateways {
        Risk::Gateway
    } else if kept {
        Risk::None
    } else {
        Risk::Reach
    }
}

/// A new configuration as far as a running agent can take it: the rest stays as it is.
pub(super) fn effective(old: &Config, new: &Config) -> Config {
    let mut effective = new.clone();
    effective.state.clone_from(&old.state);
    effective.link_carrier = old.link_carrier;
    effective.local_port = old.local_port;
    effective.link_proxy.clone_from(&old.link_proxy);
    effective.metrics = old.metrics;
    effective.listeners.clone_from(&old.listeners);
    effective.proxy = old.proxy.clone().map(|proxy| ProxyConfig {
        deny: new.proxy.as_ref().unwrap_or(&proxy).deny.clone(),
        ..proxy
    });
    effective.log.format = old.log.format;
    effective
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_change_is_named_by_its_key_and_ranked_by_its_risk() {
        let old = config(BASE);
        for (text, applied, restart, rank) in [
            (BASE.to_owned(), &[][..], &[][..], Risk::None),
            (format!("{BASE}# a comment\n"), &[], &[], Risk::None),
            (
                BASE.replace("allow = [\"10.0.0.7:80\"", "allow = [\"10.0.0.7:80\", \"10.0.0.8:80\""),
                &["allow"],
                &[],
                Risk::None,
            ),
            (
                BASE.replace("\"10.0.0.7:80\"", "\"10.0.0.0/24:80\""),
                &["allow"],
                &[],
                Risk::Reach,
            ),
            (
                BASE.replace("10.42.3.0/24", "10.42.4.0/24"),
                &["advertise"],
                &[],
                Risk::Reach,
            ),
            (
                BASE.replace("127.0.0.1:8080", "127.0.0.1:8081"),
                &["service"],
                &[],
                Risk::Reach,
            ),
            (
                BASE.replace("gw:1\"", "gw:1\", \"gw:2\""),
                &["gateway.addresses"],
                &[],
                Risk::Gateway,
            ),
            (
                format!(
                    "{BASE}[log]\nlevel = \"debug\"\nformat = \"json\"\n[link]\ncarrier = \"tls\"\nlocal_port = 9\nproxy = \"none\"\n"
                ),
                &["log.level"],
                &["link.carrier", "link.local_port", "link.proxy", "log.format"],
                Risk::None,
            ),
            (
                format!("{BASE}[link]\nrate = \"3mbit\"\n"),
                &["link.rate"],
                &[],
                Risk::None,
            ),
            (
                format!("{BASE}[[listen]]\nlisten = \"127.0.0.1:5000\"\nservice = \"registry\"\n"),
                &[],
                &["listen"],
                Risk::None,
            ),
            (
                BASE.replace(
                    "[proxy]\n",
                    "[proxy]\nlisten = \"10.0.0.1:3128\"\nzone = \"edge\"\ndeny = [\"*.edge2\"]\n",
                ),
                &["proxy.deny"],
                &["proxy.listen", "proxy.zone"],
                Risk::None,
            ),
            (BASE.replace("[proxy]\n", ""), &[], &["proxy"], Risk::None),
        ] {
            let new = config(&text);
            let change = Change::between(&old, &new);
            assert_eq!((&change.applied[..], &change.restart[..]), (applied, restart), "{text}");
            assert_eq!(risk(&old, &new), rank, "{text}");
            assert_eq!(Change::between(&old, &effective(&old, &new)).restart, [""; 0], "{text}");
        }
    }

    const BASE: &str = "\
state = \"/s\"
allow = [\"10.0.0.7:80\"]
advertise = [\"10.42.3.0/24\"]
[gateway]
addresses = [\"gw:1\"]
[[service]]
name = \"web\"
target = \"127.0.0.1:8080\"
[proxy]
";

    fn config(text: &str) -> Config {
        Config::from_text(text, Path::new("/etc/tunnel/edge.toml")).unwrap()
    }
}
