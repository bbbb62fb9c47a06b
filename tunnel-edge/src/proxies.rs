//! The proxy on the way to the gateway, where only TLS gets out: what `edge.toml` says, or else the environment.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tunnel_carrier::{
    quic,
    tls::{Exceptions, ParseProxyError, Proxies, ProxiesError, Proxy},
};
use tunnel_model::GatewayAddr;

/// The key `link.proxy`: a proxy's URL, or `none`. What it shows of itself is without the password.
#[derive(Clone, PartialEq, Eq)]
pub enum ProxySetting {
    /// No proxy, whatever the environment says.
    None,
    /// This one, whatever the environment says.
    Through(Proxy),
}

impl ProxySetting {
    /// The proxies on the way, if this is what is configured.
    pub fn proxies(setting: Option<&Self>) -> Result<Proxies, ProxiesError> {
        match setting {
            None => of_environment(),
            Some(Self::None) => Ok(Proxies::none()),
            Some(Self::Through(proxy)) => Ok(Proxies::new(proxy.clone(), Exceptions::default())),
        }
    }
}

/// What the environment of this process says.
pub(crate) fn of_environment() -> Result<Proxies, ProxiesError> {
    Proxies::from_environment(|name| std::env::var(name).ok())
}

/// The addresses of the gateways, in words. Where a proxy stands between there is often no DNS, and it resolves the names.
pub(crate) async fn resolve(gateways: &[GatewayAddr], proxies: &Proxies) -> Result<String, quic::DialError> {
    let resolved = quic::resolve(gateways).await;
    match (resolved, gateways.iter().find_map(|gateway| proxies.of(gateway))) {
        (Ok(found), _) => Ok(found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        (Err(_), Some(proxy)) => Ok(format!("not here; {proxy} does that")),
        (Err(error), None) => Err(error),
    }
}

impl FromStr for ProxySetting {
    type Err = ParseProxyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "none" => Ok(Self::None),
            url => Ok(Self::Through(url.parse()?)),
        }
    }
}

impl fmt::Display for ProxySetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Through(proxy) => proxy.fmt(f),
        }
    }
}

impl fmt::Debug for ProxySetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxySetting({self})")
    }
}

impl Serialize for ProxySetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ProxySetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The error quotes nothing of the text, which may hold a password.
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_replaces_the_environment_and_shows_no_password() {
        let gateway: GatewayAddr = "gw.example.com:443".parse().unwrap();
        for (text, shown, proxy) in [
            ("none", "none", None),
            ("proxy:3128", "http://proxy:3128", Some("http://proxy:3128")),
            ("socks5://joe:hunter2@p", "socks5://p:1080", Some("socks5://p:1080")),
        ] {
            let setting: ProxySetting = text.parse().unwrap();
            assert_eq!(setting.to_string(), shown);
            assert!(!format!("{setting:?}").contains("hunter2"));
            let proxies = ProxySetting::proxies(Some(&setting)).unwrap();
            assert_eq!(proxies.of(&gateway).map(Proxy::to_string).as_deref(), proxy);
        }
    }

    #[tokio::test]
    async fn a_name_that_only_the_proxy_can_resolve_is_left_to_it() {
        let gateways = ["gateway.invalid:443".parse().unwrap()];
        assert!(resolve(&gateways, &Proxies::none()).await.is_err());
        let proxies = Proxies::new("http://joe:hunter2@p:1".parse().unwrap(), Exceptions::default());
        assert_eq!(
            resolve(&gateways, &proxies).await.unwrap(),
            "not here; http://p:1 does that"
        );
    }
}
