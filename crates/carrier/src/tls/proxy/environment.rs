//! Which gateway goes through which proxy.

use tunnel_model::GatewayAddr;

use super::{Exceptions, ParseProxyError, Proxy};

/// The proxy on the way to gateways, and which of them go without.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    proxy: Option<Proxy>,
    except: Exceptions,
}

/// A variable holds no proxy. Says nothing of what it holds, for it may be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {variable}: {error}")]
pub struct ProxiesError {
    /// Its name.
    pub variable: &'static str,
    /// What is wrong.
    pub error: ParseProxyError,
}

/// The tunnel is TLS, so these are the variables that are for it, in their order. Of each, programs of all ages agree on
/// the spelling in lower case.
const VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const EXCEPTIONS: [&str; 2] = ["no_proxy", "NO_PROXY"];

impl Proxies {
    /// No proxy at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// This proxy, for all gateways but these.
    pub fn new(proxy: Proxy, except: Exceptions) -> Self {
        Self {
            proxy: Some(proxy),
            except,
        }
    }

    /// What the usual environment variables say; an empty one says nothing.
    ///
    /// # Errors
    /// The variable that counts holds no proxy.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ProxiesError> {
        let set = |name: &&'static str| variable(name).filter(|value| !value.trim().is_empty());
        let first = |names: &'static [&'static str]| names.iter().find_map(|name| Some((*name, set(name)?)));
        let proxy = match first(&VARIABLES) {
            Some((variable, value)) => Some(value.parse().map_err(|error| ProxiesError { variable, error })?),
            None => None,
        };
        let except = match first(&EXCEPTIONS) {
            Some((_, value)) => value.parse().unwrap_or_else(|never| match never {}),
            None => Exceptions::default(),
        };
        Ok(Self { proxy, except })
    }

    /// The proxy on the way to a gateway.
    pub fn of(&self, gateway: &GatewayAddr) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|_| !self.except.contain(&gateway.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Result<Proxies, ProxiesError> {
        Proxies::from_environment(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_usual_variables_are_read_in_their_order() {
        let gateway = "gw.example.com:443".parse().unwrap();
        for (variables, proxy) in [
            (&[][..], None),
            (&[("http_proxy", "http://a:1")], None),
            (&[("HTTPS_PROXY", "http://a:1")], Some("http://a:1")),
            (&[("ALL_PROXY", "socks5://a:1")], Some("socks5://a:1")),
            (&[("ALL_PROXY", "b:1"), ("https_proxy", "a:1")], Some("http://a:1")),
            (&[("HTTPS_PROXY", "b:1"), ("https_proxy", "a:1")], Some("http://a:1")),
            (&[("https_proxy", " "), ("all_proxy", "a:1")], Some("http://a:1")),
            (&[("https_proxy", "a:1"), ("NO_PROXY", "example.com")], None),
            (
                &[("https_proxy", "a:1"), ("no_proxy", "example.org")],
                Some("http://a:1"),
            ),
        ] {
            let proxies = environment(variables).unwrap();
            assert_eq!(
                proxies.of(&gateway).map(Proxy::to_string).as_deref(),
                proxy,
                "{variables:?}"
            );
        }
    }

    #[test]
    fn a_variable_that_holds_no_proxy_is_named_and_not_quoted() {
        let error = environment(&[("HTTPS_PROXY", "http://joe:hunter2@p:x")]).unwrap_err();
        assert_eq!(error.variable, "HTTPS_PROXY");
        assert_eq!(
            error.to_string(),
            "the environment variable HTTPS_PROXY: the proxy's address is no HOST:PORT"
        );
    }
}
