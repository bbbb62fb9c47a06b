//! What streams may reach from here, and how it is reached.
//!
//! The edge has the last word: whatever the gateway asks for, only declared services, the allow list and advertised
//! subnets are dialled. A name is resolved once, judged, and exactly the address that was judged is dialled.
//!
//! A subnet that the edge advertises needs no entry in the allow list: naming it is the operator's word. It does not
//! mean addresses of machines and links ([`is_local`]) that happen to be in it; these need a rule of their own.

mod dial;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tunnel_model::{AllowList, HostPort, Protocol, Reason, Refusal, Service, ServiceName, Subnet, Target, is_local};

pub use dial::{DIAL_DEADLINE, Reached, dial, dial_udp};

/// The services, the allow list and the subnets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    services: Vec<Service>,
    allow: AllowList,
    subnets: Vec<Subnet>,
}

/// What may be dialled for a target, and by which protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// By what.
    pub protocol: Protocol,
    /// What.
    pub goal: Goal,
}

/// What may be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// Whatever this address resolves to: the operator wrote it as a service.
    Declared(HostPort),
    /// This very address.
    Address(SocketAddr),
    /// Those addresses of this name that the allow list or a subnet names.
    IfAllowed(HostPort),
}

impl Targets {
    /// These services, and beside them what the list allows.
    pub fn new(services: Vec<Service>, allow: AllowList) -> Self {
        Self {
            services,
            allow,
            subnets: Vec::new(),
        }
    }

    /// And every port in these subnets.
    pub fn advertise(mut self, subnets: Vec<Subnet>) -> Self {
        self.subnets = subnets;
        self
    }

    /// The subnets, as they are advertised to the gateway.
    pub fn subnets(&self) -> &[Subnet] {
        &self.subnets
    }

    fn allows(&self, protocol: Protocol, ip: IpAddr, port: u16) -> bool {
        self.allow.allows(protocol, ip, port) || !is_local(ip) && self.subnets.iter().any(|net| net.contains(ip))
    }

    /// The services, as they are declared to the gateway.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// Judges a target, without a packet. `node` is what refusals call this machine.
    pub fn permit(&self, target: &Target, node: &str) -> Result<Permit, Refusal> {
        match target {
            Target::Service(name) => self.service(name, node),
            Target::Port(port) => self.port(Protocol::Tcp, *port, node),
            Target::UdpPort(port) => self.port(Protocol::Udp, *port, node),
            Target::Tcp(address) => self.address(Protocol::Tcp, address, node),
            Target::Udp(address) => self.address(Protocol::Udp, address, node),
        }
    }

    /// Judges a target again, by what holds now: whether what was permitted `before`, and found at `address`, still is.
    /// Nothing is resolved anew.
    pub fn still_permits(
        &self,
        target: &Target,
        before: &Self,
        address: SocketAddr,
        node: &str,
    ) -> Result<(), Refusal> {
        let (then, now) = (before.permit(target, node)?, self.permit(target, node)?);
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let still = match &now.goal {
            Goal::Address(permitted) => *permitted == address,
            Goal::IfAllowed(_) => self.allows(now.protocol, address.ip(), address.port()),
            // A name that stands where it stood is the operator's word, wherever it led.
            Goal::Declared(name) => {
                let found = name.ip().map(|ip| SocketAddr::new(ip.to_canonical(), name.port()));
                found == Some(address) || then.goal == now.goal
            }
        };
        if still && then.protocol == now.protocol {
            Ok(())
        } else {
            Err(not_allowed(node, then.protocol, &address.to_string()))
        }
    }

    fn service(&self, name: &ServiceName, node: &str) -> Result<Permit, Refusal> {
        match self.services.iter().find(|service| service.name == *name) {
            Some(service) => Ok(permit(service.protocol, Goal::Declared(service.target.clone()))),
            None => {
                let offered: Vec<_> = self.services.iter().map(|service| service.name.as_str()).collect();
                let message = format!(
                    "{node} has no service {name}, it has: {}; add a [[service]] to its edge.toml",
                    offered.join(", ")
                );
                Err(Refusal::new(Reason::UnknownService, message))
            }
        }
    }

    fn port(&self, protocol: Protocol, port: u16, node: &str) -> Result<Permit, Refusal> {
        if let Some(service) = self.services.iter().find(|service| service.is_port(protocol, port)) {
            return Ok(permit(protocol, Goal::Declared(service.target.clone())));
        }
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let allowed = loopback.into_iter().find(|&ip| self.allow.allows(protocol, ip, port));
        allowed.map_or_else(
            || Err(not_allowed(node, protocol, &format!("127.0.0.1:{port}"))),
            |ip| Ok(permit(protocol, Goal::Address((ip, port).into()))),
        )
    }

    fn address(&self, protocol: Protocol, address: &HostPort, node: &str) -> Result<Permit, Refusal> {
        let declared = |service: &Service| service.protocol == protocol && service.target == *address;
        if self.services.iter().any(declared) {
            return Ok(permit(protocol, Goal::Declared(address.clone())));
        }
        match address.ip() {
            Some(ip) if self.allows(protocol, ip, address.port()) => Ok(permit(
                protocol,
                Goal::Address((ip.to_canonical(), address.port()).into()),
            )),
            // Nothing can come of resolving a name that no rule could let through.
            None if !(self.allow.rules().is_empty() && self.subnets.is_empty()) => {
                Ok(permit(protocol, Goal::IfAllowed(address.clone())))
            }
            _ => Err(not_allowed(node, protocol, &address.to_string())),
        }
    }

    /// Judges the addresses that a name resolved to.
    fn allowed(&self, protocol: Protocol, found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        found
            .map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
            .filter(|address| self.allows(protocol, address.ip(), address.port()))
            .collect()
    }
}

fn permit(protocol: Protocol, goal: Goal) -> Permit {
    Permit { protocol, goal }
}

/// `what` is the address and port.
fn not_allowed(node: &str, protocol: Protocol, what: &str) -> Refusal {
    let what = match protocol {
        Protocol::Tcp => what.to_owned(),
        Protocol::Udp => format!("udp:{what}"),
    };
    let message = format!("{node} does not allow {what}; add it to `allow` in its edge.toml");
    Refusal::new(Reason::NotAllowed, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_reached_by_its_name_and_no_other() {
        let targets = targets();
        assert_eq!(judge(&targets, "service:web"), Ok(declared("127.0.0.1:8080")));
        assert_eq!(judge(&targets, "service:printer"), Ok(declared("printer.lan:631")));
        let refusal = judge(&targets, "service:db").unwrap_err();
        assert_eq!(refusal.reason, Reason::UnknownService);
        assert!(refusal.message.contains("it has: web, printer"), "{refusal}");
    }

    #[test]
    fn a_port_is_a_declared_loopback_service_or_stands_in_the_allow_list() {
        let targets = targets();
        assert_eq!(judge(&targets, "port:8080"), Ok(declared("127.0.0.1:8080")));
        assert_eq!(judge(&targets, "port:8999"), Ok(address("127.0.0.1:8999")));
        assert_eq!(judge(&targets, "port:7000"), Ok(address("[::1]:7000")));
        for refused in ["port:631", "port:9000", "port:22"] {
            assert_eq!(
                judge(&targets, refused).unwrap_err().reason,
                Reason::NotAllowed,
                "{refused}"
            );
        }
    }

    #[test]
    fn a_refusal_says_what_to_write_where() {
        let refusal = judge(&targets(), "port:5432").unwrap_err();
        assert_eq!(
            refusal.message,
            "edge1 does not allow 127.0.0.1:5432; add it to `allow` in its edge.toml"
        );
    }

    /// T4: other spellings of an address are that address, and a name is nothing before it is resolved.
    #[test]
    fn an_address_is_judged_and_not_its_spelling() {
        let targets = targets();
        assert_eq!(judge(&targets, "tcp:[::ffff:10.0.0.9]:80"), Ok(address("10.0.0.9:80")));
        for refused in [
            "tcp:169.254.169.254:80",
            "tcp:[::ffff:a9fe:a9fe]:80",
            "tcp:10.0.0.9:81",
            "tcp:[::1]:8500",
        ] {
            assert_eq!(
                judge(&targets, refused).unwrap_err().reason,
                Reason::NotAllowed,
                "{refused}"
            );
        }
        // A name is judged by what it resolves to; what a resolver would read as an address is no name.
        let named = judge(&targets, "tcp:db.internal:80").unwrap();
        assert!(matches!(named.goal, Goal::IfAllowed(_)), "{named:?}");
        for number in ["tcp:2852039166:80", "tcp:0xa9fea9fe:80", "tcp:127.1:80"] {
            assert!(number.parse::<Target>().is_err(), "{number}");
        }
        let resolved = ["169.254.169.254:80", "10.0.0.9:80", "[::ffff:10.0.0.8]:80"].map(|a| a.parse().unwrap());
        let allowed: Vec<SocketAddr> = ["10.0.0.9:80", "10.0.0.8:80"].map(|a| a.parse().unwrap()).into();
        assert_eq!(targets.allowed(Protocol::Tcp, resolved.into_iter()), allowed);
    }

    #[test]
    fn an_advertised_subnet_is_reached_on_every_port_by_both_protocols() {
        let targets = Targets::default().advertise(vec!["10.42.3.0/24".parse().unwrap()]);
        assert_eq!(judge(&targets, "tcp:10.42.3.7:1"), Ok(address("10.42.3.7:1")));
        assert_eq!(
            judge(&targets, "udp:[::ffff:10.42.3.7]:53"),
            Ok(permit(Protocol::Udp, Goal::Address("10.42.3.7:53".parse().unwrap())))
        );
        for refused in ["tcp:10.42.4.7:1", "port:22", "tcp:127.0.0.1:22"] {
            let refusal = judge(&targets, refused).unwrap_err();
            assert_eq!(refusal.reason, Reason::NotAllowed, "{refused}");
        }
    }

    /// T4, B14: a default route does not mean the secrets of the machine that it is advertised by.
    #[test]
    fn an_advertised_subnet_does_not_mean_addresses_of_machines_and_links() {
        let nets = ["0.0.0.0/0", "::/0", "169.254.0.0/16", "127.0.0.0/8"].map(|net| net.parse().unwrap());
        let targets = |allow: &[&str]| {
            let allow = allow.iter().map(|rule| rule.parse().unwrap()).collect();
            Targets::new(Vec::new(), allow).advertise(nets.to_vec())
        };
        assert!(judge(&targets(&[]), "tcp:8.8.8.8:53").is_ok());
        for local in [
            "tcp:169.254.169.254:80",
            "tcp:[::ffff:a9fe:a9fe]:80",
            "tcp:127.0.0.1:22",
            "tcp:0.0.0.0:22",
            "tcp:0.1.2.3:22",
            "tcp:[::1]:22",
            "tcp:[fe80::1]:22",
            "tcp:[fd00:ec2::254]:80",
            "udp:224.0.0.251:5353",
            "udp:[ff02::fb]:5353",
            "port:22",
        ] {
            let refusal = judge(&targets(&[]), local).unwrap_err();
            assert_eq!(refusal.reason, Reason::NotAllowed, "{local}");
        }
        let explicit = targets(&["169.254.169.254:80"]);
        assert!(judge(&explicit, "tcp:169.254.169.254:80").is_ok());
    }

    #[test]
    fn what_is_allowed_by_one_protocol_is_not_by_the_other() {
        let dns = Service {
            protocol: Protocol::Udp,
            ..Service::new("dns".parse().unwrap(), "127.0.0.1:53".parse().unwrap())
        };
        let allow = ["udp:127.0.0.1:5353", "udp:10.0.0.0/24:53", "10.0.0.0/24:80"];
        let targets = Targets::new(vec![dns], allow.iter().map(|rule| rule.parse().unwrap()).collect());
        for (target, goal) in [
            ("service:dns", Goal::Declared("127.0.0.1:53".parse().unwrap())),
            ("udp:53", Goal::Declared("127.0.0.1:53".parse().unwrap())),
            ("udp:127.0.0.1:53", Goal::Declared("127.0.0.1:53".parse().unwrap())),
            ("udp:5353", Goal::Address("127.0.0.1:5353".parse().unwrap())),
            ("udp:10.0.0.9:53", Goal::Address("10.0.0.9:53".parse().unwrap())),
        ] {
            assert_eq!(judge(&targets, target), Ok(permit(Protocol::Udp, goal)), "{target}");
        }
        for refused in [
            "port:53",
            "port:5353",
            "tcp:127.0.0.1:53",
            "tcp:10.0.0.9:53",
            "udp:10.0.0.9:80",
        ] {
            let refusal = judge(&targets, refused).unwrap_err();
            assert_eq!(refusal.reason, Reason::NotAllowed, "{refused}");
        }
        assert_eq!(
            judge(&targets, "udp:54").unwrap_err().message,
            "edge1 does not allow udp:127.0.0.1:54; add it to `allow` in its edge.toml"
        );
    }

    #[test]
    fn what_was_reached_is_judged_again_by_what_holds_now() {
        let service = |target: &str, protocol| Service {
            protocol,
            ..Service::new("web".parse().unwrap(), target.parse().unwrap())
        };
        let made = |services: &[Service], allow: &[&str], advertise: &[&str]| {
            Targets::new(
                services.to_vec(),
                allow.iter().map(|rule| rule.parse().unwrap()).collect(),
            )
            .advertise(advertise.iter().map(|net| net.parse().unwrap()).collect())
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let none = made(&[], &[], &[]);
        let named = [service("web.lan:80", tcp)];
        for (target, address, before, now, still) in [
            (
                "port:80",
                "127.0.0.1:80",
                made(&[], &["127.0.0.1:80"], &[]),
                none.clone(),
                false,
            ),
            (
                "port:80",
                "127.0.0.1:80",
                made(&[], &["127.0.0.1:80"], &[]),
                made(&[], &["127.0.0.1:1-99"], &[]),
                true,
            ),
            (
                "port:80",
                "127.0.0.1:80",
                made(&[], &["127.0.0.1:80"], &[]),
                made(&[], &["[::1]:80"], &[]),
                false,
            ),
            (
                "port:80",
                "127.0.0.1:80",
                made(&[], &["127.0.0.1:80"], &[]),
                made(&[], &["udp:127.0.0.1:80"], &[]),
                false,
            ),
            (
                "port:80",
                "127.0.0.1:80",
                made(&[service("127.0.0.1:80", tcp)], &[], &[]),
                made(&[], &["127.0.0.1:80"], &[]),
                true,
            ),
            (
                "service:web",
                "127.0.0.1:80",
                made(&[service("127.0.0.1:80", tcp)], &[], &[]),
                none.clone(),
                false,
            ),
            (
                "service:web",
                "127.0.0.1:80",
                made(&[service("127.0.0.1:80", tcp)], &[], &[]),
                made(&[service("127.0.0.1:81", tcp)], &[], &[]),
                false,
            ),
            (
                "service:web",
                "127.0.0.1:80",
                made(&[service("127.0.0.1:80", tcp)], &[], &[]),
                made(&[service("127.0.0.1:80", udp)], &[], &[]),
                false,
            ),
            (
                "service:web",
                "10.0.0.9:80",
                made(&named, &[], &[]),
                made(&named, &["10.0.0.9:1"], &[]),
                true,
            ),
            (
                "service:web",
                "10.0.0.9:80",
                made(&named, &[], &[]),
                made(&[service("other.lan:80", tcp)], &[], &[]),
                false,
            ),
            (
                "service:web",
                "10.0.0.9:80",
                made(&named, &[], &[]),
                made(&[service("10.0.0.9:80", tcp)], &[], &[]),
                true,
            ),
            (
                "tcp:web.lan:80",
                "10.0.0.9:80",
                made(&[], &["10.0.0.9:80"], &[]),
                made(&[], &["10.0.0.0/24:80"], &[]),
                true,
            ),
            (
                "tcp:web.lan:80",
                "10.0.0.9:80",
                made(&[], &["10.0.0.0/24:80"], &[]),
                made(&[], &["10.0.0.8:80"], &[]),
                false,
            ),
            (
                "tcp:10.42.3.7:80",
                "10.42.3.7:80",
                made(&[], &[], &["10.42.3.0/24"]),
                made(&[], &[], &["10.42.4.0/24"]),
                false,
            ),
            (
                "tcp:10.42.3.7:80",
                "10.42.3.7:80",
                made(&[], &[], &["10.42.3.0/24"]),
                made(&[], &[], &["10.42.0.0/16"]),
                true,
            ),
        ] {
            let judged = now.still_permits(&target.parse().unwrap(), &before, address.parse().unwrap(), "edge1");
            assert_eq!(judged.is_ok(), still, "{target}: {before:?}, {now:?}: {judged:?}");
        }
    }

    #[test]
    fn without_an_allow_list_no_name_is_even_resolved() {
        let targets = Targets::new(targets().services, AllowList::default());
        assert_eq!(
            judge(&targets, "tcp:db.internal:5432").unwrap_err().reason,
            Reason::NotAllowed
        );
        assert_eq!(judge(&targets, "tcp:printer.lan:631"), Ok(declared("printer.lan:631")));
    }

    fn targets() -> Targets {
        let service = |name: &str, target: &str| Service::new(name.parse().unwrap(), target.parse().unwrap());
        let allow = ["127.0.0.1:8500-8999", "[::1]:7000", "10.0.0.0/24:80"];
        Targets::new(
            vec![service("web", "127.0.0.1:8080"), service("printer", "printer.lan:631")],
            allow.iter().map(|rule| rule.parse().unwrap()).collect(),
        )
    }

    fn judge(targets: &Targets, target: &str) -> Result<Permit, Refusal> {
        targets.permit(&target.parse().unwrap(), "edge1")
    }

    fn declared(address: &str) -> Permit {
        permit(Protocol::Tcp, Goal::Declared(address.parse().unwrap()))
    }

    fn address(address: &str) -> Permit {
        permit(Protocol::Tcp, Goal::Address(address.parse().unwrap()))
    }
}
