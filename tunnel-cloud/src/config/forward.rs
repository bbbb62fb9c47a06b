//! `[[forward]]`: a port of the gateway that always leads to the same target.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tunnel_model::{ChosenClass, Destination, HostPort, NodeName, Protocol, Target, UserName};

/// One table `forward`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawForward {
    /// Where to listen, IP:PORT
    pub listen: SocketAddr,
    /// The node to which it leads
    pub node: NodeName,
    /// What on the node: PORT, service:NAME or IP:PORT, with tcp: or udp: before it where it needs saying
    pub target: String,
    /// tcp or udp; tcp unless the target says udp
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// How urgent its streams are: interactive, api, metrics or bulk; as the target says unless set
    #[serde(default)]
    pub class: Option<ChosenClass>,
    /// On whose behalf: user:NAME; unless set, callers count as their addresses do
    #[serde(default, rename = "as")]
    pub on_behalf_of: Option<String>,
}

/// A port of the gateway that always leads to the same target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forward {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The node to which it leads.
    pub node: NodeName,
    /// What on the node.
    pub target: Target,
    /// What it takes from callers, and what the target takes.
    pub protocol: Protocol,
    /// How urgent its streams are, where that was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<ChosenClass>,
    /// The user on whose behalf it leads there; where there is none, callers count as their addresses do.
    #[serde(
        rename = "as",
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_subject"
    )]
    pub user: Option<UserName>,
}

/// What is wrong with a table `forward`: the key, and why.
pub(super) type BadForward = (&'static str, String);

impl Forward {
    pub(super) fn new(raw: RawForward) -> Result<Self, BadForward> {
        let (target, protocol) = parse_target(&raw.target, raw.protocol).map_err(|why| ("target", why))?;
        let user = match raw.on_behalf_of.as_deref().map(user_of) {
            None => None,
            Some(Ok(user)) => Some(user),
            Some(Err(why)) => return Err(("as", why)),
        };
        if raw.node.is_reserved() && !matches!(target, Target::Service(_)) {
            let why = format!("{} has services and nothing else; write service:NAME", raw.node);
            return Err(("target", why));
        }
        Ok(Self {
            listen: raw.listen,
            node: raw.node,
            target,
            protocol,
            class: raw.class,
            user,
        })
    }

    /// The far end.
    pub fn destination(&self) -> Destination {
        Destination {
            node: self.node.clone(),
            target: self.target.clone(),
        }
    }
}

/// Reads what a forward leads to: `22`, `10.42.3.7:80`, `service:web`, or any of the [`Target`]'s own forms. The protocol
/// that the text names, if it names one, must be the given one, if one is given; a service is what the edge says it is.
pub fn parse_target(text: &str, given: Option<Protocol>) -> Result<(Target, Protocol), String> {
    let named = text.parse::<Target>();
    let said = named.as_ref().ok().and_then(Target::protocol);
    let protocol = match (said, given) {
        (Some(said), Some(given)) if said != given => {
            return Err(format!(
                "{text:?} is a {said} target, and the protocol is to be {given}"
            ));
        }
        (said, given) => said.or(given).unwrap_or_default(),
    };
    let target = match named {
        Ok(target) => target,
        Err(_) => bare(text, protocol).ok_or_else(|| {
            format!("{text:?} is no target; write PORT, udp:PORT, service:NAME, IP:PORT or udp:IP:PORT")
        })?,
    };
    Ok((target, protocol))
}

/// A port, or an address and a port, of a protocol that is known otherwise.
fn bare(text: &str, protocol: Protocol) -> Option<Target> {
    if let Ok(port) = format!("{protocol}:{text}").parse::<Target>() {
        let is_name = matches!(&port, Target::Tcp(address) | Target::Udp(address) if address.ip().is_none());
        return (!is_name).then_some(port);
    }
    let address: HostPort = text.parse().ok()?;
    address.ip().map(|_| Target::remote(protocol, address))
}

fn user_of(subject: &str) -> Result<UserName, String> {
    let name = subject
        .strip_prefix("user:")
        .ok_or_else(|| format!("{subject:?} is no user; write user:NAME"))?;
    name.parse().map_err(|error| format!("{error}"))
}

#[expect(clippy::ref_option, reason = "serde hands fields over so")]
fn as_subject<S: serde::Serializer>(user: &Option<UserName>, serializer: S) -> Result<S::Ok, S::Error> {
    match user {
        Some(user) => serializer.collect_str(&format_args!("user:{user}")),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_with_the_protocol_it_or_its_table_names() {
        use Protocol::{Tcp, Udp};
        for (text, given, target, protocol) in [
            ("22", None, "port:22", Tcp),
            ("53", Some(Udp), "udp:53", Udp),
            ("tcp:22", None, "port:22", Tcp),
            ("port:22", Some(Tcp), "port:22", Tcp),
            ("udp:53", None, "udp:53", Udp),
            ("service:web", None, "service:web", Tcp),
            ("service:dns", Some(Udp), "service:dns", Udp),
            ("10.42.3.7:80", None, "tcp:10.42.3.7:80", Tcp),
            ("[2001:db8::1]:53", Some(Udp), "udp:[2001:db8::1]:53", Udp),
            ("udp:10.42.3.7:53", None, "udp:10.42.3.7:53", Udp),
        ] {
            assert_eq!(
                parse_target(text, given),
                Ok((target.parse().unwrap(), protocol)),
                "{text}"
            );
        }
        for (text, given) in [
            ("", None),
            ("0", None),
            ("web", None),
            ("web:80", None),
            ("0x7f.1:80", None),
            ("service:", None),
            ("sctp:1", None),
            ("udp:53", Some(Tcp)),
            ("tcp:53", Some(Udp)),
        ] {
            assert!(parse_target(text, given).is_err(), "{text:?}");
        }
    }
}
