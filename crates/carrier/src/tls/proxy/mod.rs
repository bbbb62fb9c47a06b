//! Proxies on the way to a gateway.

mod environment;
mod exceptions;
mod http;
mod socks5;

use std::{fmt, io, net::SocketAddr, str::FromStr, time::Duration};

use tokio::{net::TcpStream, net::lookup_host, time::timeout};
use tunnel_model::HostPort;

pub use self::{
    environment::{Proxies, ProxiesError},
    exceptions::Exceptions,
};
use super::client::{connect_tcp, first};

/// How long the proxy's name may take to resolve.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a proxy may take to answer; it has to reach the gateway first.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);

/// A proxy: `http://host:port`, `socks5://host:port`, with `user:password@` before the host where it wants credentials.
/// Neither its `Display` nor its `Debug` shows them.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    address: HostPort,
    credentials: Option<Credentials>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// HTTP CONNECT (RFC 9110 section 9.3.6).
    Http,
    /// RFC 1928. It resolves the gateway's name, as `socks5h` says: where a proxy stands, there is often no DNS.
    Socks5,
}

#[derive(Clone, PartialEq, Eq)]
struct Credentials {
    user: String,
    password: String,
}

/// A text is no proxy. Says nothing of the text, which may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseProxyError {
    /// A scheme that is not known.
    #[error("a proxy begins with \"http://\" or \"socks5://\"")]
    Scheme,
    /// TLS towards the proxy.
    #[error("TLS towards the proxy is not supported; write \"http://\", the tunnel brings its own TLS")]
    Https,
    /// SOCKS version 4.
    #[error("SOCKS 4 is not supported; write \"socks5://\" if the proxy speaks it")]
    Socks4,
    /// No host, or something that is none.
    #[error("the proxy's address is no HOST:PORT")]
    Address,
    /// Something after the port.
    #[error("nothing may follow the proxy's port")]
    Trailing,
    /// Credentials that cannot be sent.
    #[error(
        "the proxy's user name or password is malformed: percent signs are written %25, and neither may be too long"
    )]
    Credentials,
}

/// The proxy failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("proxy {proxy}: {failure}")]
pub struct ProxyError {
    /// Which.
    pub proxy: HostPort,
    /// How.
    pub failure: ProxyFailure,
}

/// How a proxy failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyFailure {
    /// Its name gave no address.
    #[error("its name does not resolve: {0}")]
    Resolve(String),
    /// There is no way to it, or nothing listens there.
    #[error("it cannot be reached: {0}")]
    Connect(String),
    /// It does not answer.
    #[error("it does not answer")]
    Silent,
    /// It wants a user name and a password, and has none.
    #[error("it asks for credentials ({0}); write them into its URL, as USER:PASSWORD@HOST")]
    CredentialsMissing(String),
    /// It wants other credentials.
    #[error("it refused the user name or the password ({0})")]
    CredentialsRefused(String),
    /// It does not let us through.
    #[error("it refused to connect to the gateway: {0}")]
    Refused(String),
    /// It is no proxy, or not of this kind.
    #[error("what answers there is no {0} proxy")]
    Malformed(&'static str),
    /// It closed the connection.
    #[error("it closed the connection: {0}")]
    Closed(String),
}

impl Proxy {
    /// Where it is.
    pub fn address(&self) -> &HostPort {
        &self.address
    }

    /// Whether it has a user name and a password.
    pub fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// As it is read, with the password: for a file that only its owner reads.
    pub fn to_secret_url(&self) -> String {
        let shown = self.to_string();
        match (&self.credentials, shown.split_once("://")) {
            (Some(Credentials { user, password }), Some((scheme, rest))) => {
                let (user, password) = (percent_encoded(user), percent_encoded(password));
                format!("{scheme}://{user}:{password}@{rest}")
            }
            _ => shown,
        }
    }

    /// A connection through it; what is sent on it goes to the target.
    pub(super) async fn connect(&self, target: &HostPort) -> Result<TcpStream, ProxyError> {
        let connected = async {
            let mut tcp = self.reach().await?;
            let answer = async {
                match self.kind {
                    Kind::Http => http::connect(&mut tcp, target, self.credentials.as_ref()).await,
                    Kind::Socks5 => socks5::connect(&mut tcp, target, self.credentials.as_ref()).await,
                }
            };
            timeout(ANSWER_DEADLINE, answer)
                .await
                .unwrap_or(Err(ProxyFailure::Silent))?;
            Ok(tcp)
        };
        connected.await.map_err(|failure| ProxyError {
            proxy: self.address.clone(),
            failure,
        })
    }

    async fn reach(&self) -> Result<TcpStream, ProxyFailure> {
        let addresses: Vec<SocketAddr> = match timeout(
            RESOLVE_DEADLINE,
            lookup_host((self.address.host(), self.address.port())),
        )
        .await
        {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(error)) => return Err(ProxyFailure::Resolve(error.to_string())),
            Err(_) => return Err(ProxyFailure::Resolve("the resolver does not answer".to_owned())),
        };
        let attempts = addresses
            .into_iter()
            .map(|address| async move { (address, connect_tcp(address).await) });
        first(attempts)
            .await
            .map_err(|failures| ProxyFailure::Connect(crate::quic::join(&failures)))
    }
}

impl Credentials {
    /// The longest user name or password, in bytes (RFC 1929 section 2).
    const LONGEST: usize = 255;

    fn parse(text: &str) -> Option<Self> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let (user, password) = (percent_decoded(user)?, percent_decoded(password)?);
        let fits = |part: &str| part.len() <= Self::LONGEST && !part.contains(char::is_control);
        // Basic authentication ends the name at the first colon (RFC 7617 section 2).
        (!user.is_empty() && !user.contains(':') && fits(&user) && fits(&password)).then_some(Self { user, password })
    }
}

/// RFC 3986 section 2.1
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|d| char::from(d).to_digit(16));
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            _ => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02x}"),
    };
    text.bytes().map(encode).collect()
}

impl FromStr for Proxy {
    type Err = ParseProxyError;

    /// A text without a scheme is an HTTP proxy, as in the usual environment variables. Without a port, HTTP is 80 and
    /// SOCKS 1080.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (kind, port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Kind::Http, 80),
            "socks" | "socks5" | "socks5h" => (Kind::Socks5, 1080),
            "https" => return Err(ParseProxyError::Https),
            "socks4" | "socks4a" => return Err(ParseProxyError::Socks4),
            _ => return Err(ParseProxyError::Scheme),
        };
        let (credentials, address) = match rest.rsplit_once('@') {
            Some((credentials, address)) => {
                let credentials = Credentials::parse(credentials).ok_or(ParseProxyError::Credentials)?;
                (Some(credentials), address)
            }
            None => (None, rest),
        };
        let address = match address.split_once(['/', '?', '#']) {
            None => address,
            Some((address, "")) => address,
            Some(_) => return Err(ParseProxyError::Trailing),
        };
        let has_port = address.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let address = if has_port {
            address.parse()
        } else {
            format!("{address}:{port}").parse()
        };
        Ok(Self {
            kind,
            address: address.map_err(|_| ParseProxyError::Address)?,
            credentials,
        })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{}", self.address)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// What an error on the connection to a proxy means.
fn broke(error: &io::Error) -> ProxyFailure {
    ProxyFailure::Closed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_with_and_without_what_may_be_left_out() {
        for (text, shown, credentials) in [
            ("http://proxy.example.com:3128", "http://proxy.example.com:3128", None),
            ("proxy:3128", "http://proxy:3128", None),
            ("http://Proxy/", "http://proxy:80", None),
            ("http://[2001:db8::1]", "http://[2001:db8::1]:80", None),
            ("socks5://127.0.0.1", "socks5://127.0.0.1:1080", None),
            ("SOCKS5H://[::1]:9", "socks5://[::1]:9", None),
            ("http://joe:s3cret@p:1", "http://p:1", Some(("joe", "s3cret"))),
            ("joe:p%40ss%3a%25@p:1", "http://p:1", Some(("joe", "p@ss:%"))),
            ("socks5://joe:a@b:c@p:1", "socks5://p:1", Some(("joe", "a@b:c"))),
            ("http://joe@p:1", "http://p:1", Some(("joe", ""))),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!(proxy.to_string(), shown, "{text}");
            let read = proxy
                .credentials
                .as_ref()
                .map(|c| (c.user.as_str(), c.password.as_str()));
            assert_eq!(read, credentials, "{text}");
            assert_eq!(proxy.to_secret_url().parse().as_ref(), Ok(&proxy), "{text}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_by_name() {
        let long = format!("http://joe:{}@p:1", "x".repeat(256));
        for (text, error) in [
            ("ftp://p:1", ParseProxyError::Scheme),
            ("https://p:1", ParseProxyError::Https),
            ("socks4://p:1", ParseProxyError::Socks4),
            ("", ParseProxyError::Address),
            ("http://", ParseProxyError::Address),
            ("http://p:0", ParseProxyError::Address),
            ("http://a b:1", ParseProxyError::Address),
            ("http://p:1/path", ParseProxyError::Trailing),
            ("http://p:1?x", ParseProxyError::Trailing),
            ("http://joe:%4@p:1", ParseProxyError::Credentials),
            ("http://joe:%zz@p:1", ParseProxyError::Credentials),
            ("http://:x@p:1", ParseProxyError::Credentials),
            ("http://joe:a%0d%0ab@p:1", ParseProxyError::Credentials),
            (&long, ParseProxyError::Credentials),
        ] {
            assert_eq!(text.parse::<Proxy>(), Err(error), "{text}");
        }
    }

    #[test]
    fn no_text_of_a_proxy_or_its_errors_holds_the_secret() {
        let proxy: Proxy = "http://joe:hunter2@p:1".parse().unwrap();
        let texts = [proxy.to_string(), format!("{proxy:?}"), format!("{:#?}", Some(&proxy))];
        let errors = [
            "x://joe:hunter2@p:1",
            "http://joe:hunter2%@p:1",
            "http://joe:hunter2@p:x",
        ]
        .map(|text| {
            let error = text.parse::<Proxy>().unwrap_err();
            format!("{error} {error:?}")
        });
        for text in texts.iter().chain(&errors) {
            assert!(!text.contains("hunter2") && !text.contains("joe"), "{text}");
        }
    }
}
