//! From an address to a node: the route that leads there, told to those who may use it.
//!
//! Rights come first here too. Whoever may not reach an address on the nodes in question hears the same as if there were
//! no route, so that nobody maps sites by trying addresses.

use std::net::SocketAddr;

use tunnel_model::{Destination, HostPort, NodeName, Principal, Protocol, Reason, Refusal, RouteError, Target};

use crate::directory::LiveDirectory;

/// The node that leads to an address, for whom `may` says where this caller may reach a target.
pub(super) fn node_towards(
    directory: &LiveDirectory,
    may: impl Fn(&Destination) -> bool,
    principal: &Principal,
    protocol: Protocol,
    address: SocketAddr,
) -> Result<NodeName, Refusal> {
    let host_port = HostPort::from_ip(address.ip(), address.port());
    let target = match protocol {
        Protocol::Tcp => Target::Tcp(host_port),
        Protocol::Udp => Target::Udp(host_port),
    };
    let may = |node: &NodeName| {
        may(&Destination {
            node: node.clone(),
            target: target.clone(),
        })
    };
    let refused = |error: RouteError| Refusal::new(Reason::Denied, error.to_string());
    match directory.route(address.ip()) {
        Ok(node) if may(&node) => Ok(node),
        // This depends on nothing but the address.
        Err(error @ RouteError::Local(_)) => Err(refused(error)),
        Err(RouteError::Ambiguous { ip, net, mut nodes }) => {
            // Of the others one does not even learn that they are there.
            nodes.retain(may);
            match nodes.is_empty() {
                true => Err(no_way(principal, &target, address)),
                false => Err(refused(RouteError::Ambiguous { ip, net, nodes })),
            }
        }
        Ok(_) | Err(RouteError::NoRoute(_)) => Err(no_way(principal, &target, address)),
    }
}

/// The same whether there is no route or none for this caller.
fn no_way(principal: &Principal, target: &Target, address: SocketAddr) -> Refusal {
    let example = match address {
        SocketAddr::V4(v4) => format!("{}.via.NODE", v4.ip()),
        SocketAddr::V6(_) => "ADDRESS.via.NODE with dashes for colons".to_owned(),
    };
    let message = format!(
        "no route leads {principal} to {target}: none is approved (see `tunnel-cloud routes ls`), or no rule lets \
         {principal} use it; or write {example}"
    );
    Refusal::new(Reason::Denied, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::tests::{at, directory, id, online};
    use tunnel_model::Offer;

    #[tokio::test]
    async fn whoever_has_no_right_hears_the_same_with_and_without_a_route() {
        let (_dir, directory) = directory().await;
        for n in [1, 2] {
            approve(&directory, n, "10.1.2.0/24").await;
        }
        approve(&directory, 1, "10.42.3.0/24").await;
        let said = |ip: &str, may: &[&str]| ask(&directory, ip, may).unwrap_err().replace(ip, "IP");
        let nothing = said("192.0.2.1", &[]);
        for (ip, may) in [
            ("192.0.2.1", &["a", "b"][..]),
            ("10.42.3.7", &[]),
            ("10.42.3.7", &["b"]),
            ("10.1.2.3", &[]),
        ] {
            assert_eq!(said(ip, may), nothing, "{ip} {may:?}");
        }
        assert_eq!(ask(&directory, "10.42.3.7", &["a"]).as_deref(), Ok("a"));
    }

    #[tokio::test]
    async fn an_ambiguous_address_names_the_nodes_that_one_may_reach() {
        let (_dir, directory) = directory().await;
        for n in [1, 2] {
            approve(&directory, n, "10.1.2.0/24").await;
        }
        let both = ask(&directory, "10.1.2.3", &["a", "b"]).unwrap_err();
        assert!(both.contains("a, b") && both.contains("10.1.2.3.via.a"), "{both}");
        let one = ask(&directory, "10.1.2.3", &["b"]).unwrap_err();
        assert!(!one.contains("a, b") && one.contains("10.1.2.3.via.b"), "{one}");
    }

    /// B14
    #[tokio::test]
    async fn b14_no_approved_subnet_leads_to_the_metadata_service() {
        let (_dir, directory) = directory().await;
        for subnet in ["0.0.0.0/0", "169.254.0.0/16", "::/0"] {
            approve(&directory, 1, subnet).await;
        }
        for ip in [
            "169.254.169.254",
            "127.0.0.1",
            "::1",
            "fd00:ec2::254",
            "64:ff9b::a9fe:a9fe",
        ] {
            assert!(ask(&directory, ip, &["a"]).is_err(), "{ip}");
        }
        assert_eq!(ask(&directory, "8.8.8.8", &["a"]).as_deref(), Ok("a"));
    }

    /// The node towards port 80 of an address for a caller with rights on these nodes, or what it hears.
    fn ask(directory: &LiveDirectory, ip: &str, may: &[&str]) -> Result<String, String> {
        let may = |to: &Destination| may.contains(&to.node.as_str());
        let alice = Principal::user("alice".parse().unwrap(), Vec::new());
        let address = (ip.parse::<std::net::IpAddr>().unwrap(), 80).into();
        let found = node_towards(directory, may, &alice, Protocol::Tcp, address);
        found.map(|node| node.to_string()).map_err(|refusal| {
            assert_eq!(refusal.reason, Reason::Denied);
            refusal.message
        })
    }

    async fn approve(directory: &LiveDirectory, n: u8, subnet: &str) {
        let subnet = subnet.parse().unwrap();
        let mut subnets: Vec<_> = directory.read(|all| all.get(id(n)).unwrap().subnets.clone());
        subnets.push(subnet);
        let stay = online(directory, n, 10).unwrap();
        let offer = Offer {
            services: Vec::new(),
            subnets,
        };
        directory.declare(&stay, offer);
        directory.approve_route(id(n), subnet, at(10)).await.unwrap();
    }
}
