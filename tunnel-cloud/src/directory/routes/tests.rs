use super::*;
use crate::directory::tests::{at, directory, id, load, name, online};

#[tokio::test]
async fn a_subnet_leads_to_a_node_once_it_is_approved_and_while_it_is_advertised() {
    let (_dir, directory) = directory().await;
    let stay = online(&directory, 1, 10).unwrap();
    directory.declare(&stay, offer(&["10.42.3.0/24"]));
    assert!(matches!(route(&directory, "10.42.3.7"), Err(RouteError::NoRoute(_))));
    assert_eq!(listed(&directory), ["a 10.42.3.0/24 Advertised"]);

    approve(&directory, 1, "10.42.3.0/24").await.unwrap();
    assert_eq!(route(&directory, "10.42.3.7"), Ok(name("a")));
    assert_eq!(listed(&directory), ["a 10.42.3.0/24 Approved"]);

    directory.declare(&stay, offer(&["10.42.4.0/24"]));
    assert!(route(&directory, "10.42.3.7").is_err());
    assert_eq!(
        listed(&directory),
        ["a 10.42.3.0/24 Withdrawn", "a 10.42.4.0/24 Advertised"]
    );

    directory.declare(&stay, offer(&["10.42.3.0/24"]));
    assert_eq!(route(&directory, "10.42.3.7"), Ok(name("a")));
    assert!(directory.revoke_route(id(1), net("10.42.3.0/24")).await.unwrap());
    assert!(!directory.revoke_route(id(1), net("10.42.3.0/24")).await.unwrap());
    assert!(route(&directory, "10.42.3.7").is_err());
}

#[tokio::test]
async fn only_the_very_subnet_that_is_advertised_can_be_approved() {
    let (_dir, directory) = directory().await;
    let stay = online(&directory, 1, 10).unwrap();
    directory.declare(&stay, offer(&["10.42.3.0/24"]));
    let refused = approve(&directory, 1, "10.42.0.0/16").await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the node does not advertise 10.42.0.0/16, it advertises: 10.42.3.0/24"
    );
    let refused = approve(&directory, 2, "10.42.3.0/24").await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the node does not advertise 10.42.3.0/24, it advertises: nothing"
    );
    assert_eq!(
        approve(&directory, 9, "10.0.0.0/8").await,
        Err(ApproveError::UnknownNode)
    );
}

#[tokio::test]
async fn the_same_subnet_behind_two_nodes_is_ambiguous_until_one_is_revoked() {
    let (_dir, directory) = directory().await;
    for n in [1, 2] {
        let stay = online(&directory, n, 10).unwrap();
        directory.declare(&stay, offer(&["10.1.2.0/24"]));
        approve(&directory, n, "10.1.2.0/24").await.unwrap();
    }
    assert!(directory.routes().iter().all(|route| route.ambiguous));
    assert!(matches!(
        route(&directory, "10.1.2.3"),
        Err(RouteError::Ambiguous { .. })
    ));
    assert!(directory.revoke(id(2), at(20)).await.unwrap());
    assert_eq!(route(&directory, "10.1.2.3"), Ok(name("a")));
    assert!(directory.routes().iter().all(|route| !route.ambiguous));
}

#[tokio::test]
async fn a_route_stays_with_a_node_that_is_offline_and_across_restarts() {
    let (dir, directory) = directory().await;
    for (n, subnet) in [(1, "10.42.3.0/24"), (2, "10.0.0.0/8")] {
        let stay = online(&directory, n, 10).unwrap();
        directory.declare(&stay, offer(&[subnet]));
        approve(&directory, n, subnet).await.unwrap();
        directory.offline(stay, tunnel_model::Reason::CarrierLost, at(20));
    }
    assert_eq!(route(&directory, "10.42.3.7"), Ok(name("a")));
    directory.flush().await.unwrap();
    drop(directory);

    let directory = load(&dir, 30).await;
    assert_eq!(route(&directory, "10.42.3.7"), Ok(name("a")));
    assert_eq!(route(&directory, "10.9.9.9"), Ok(name("b")));
    assert!(directory.remove(id(1)).await.unwrap());
    assert_eq!(route(&directory, "10.42.3.7"), Ok(name("b")));
    drop(directory);
    assert_eq!(listed(&load(&dir, 40).await), ["b 10.0.0.0/8 Approved"]);
}

fn offer(subnets: &[&str]) -> tunnel_model::Offer {
    tunnel_model::Offer {
        services: Vec::new(),
        subnets: subnets.iter().map(|subnet| net(subnet)).collect(),
    }
}

async fn approve(directory: &LiveDirectory, n: u8, subnet: &str) -> Result<(), ApproveError> {
    directory.approve_route(id(n), net(subnet), at(15)).await
}

fn route(directory: &LiveDirectory, ip: &str) -> Result<NodeName, RouteError> {
    directory.route(ip.parse().unwrap())
}

fn listed(directory: &LiveDirectory) -> Vec<String> {
    let line = |route: RouteEntry| format!("{} {} {:?}", route.node, route.subnet, route.state);
    directory.routes().into_iter().map(line).collect()
}

fn net(text: &str) -> Subnet {
    text.parse().unwrap()
}
