//! What somebody types while the lab runs: the links change under what crosses them.

use std::{io, sync::Arc};

use tokio::sync::mpsc;
use tunnel_linkem::{LinkConfig, relay::UdpRelay};
use tunnel_model::NodeName;

/// What can be typed.
pub(super) const HELP: &str = "cut [NODE]\n  mend [NODE]\n  link RATE,DELAY,LOSS [NODE], such as: link 1mbit,200ms,2%";

/// Lines that may wait.
const WAITING: usize = 16;

/// One line, understood.
#[derive(Debug, Clone, PartialEq)]
struct Order {
    change: Change,
    /// `None` is every node.
    node: Option<NodeName>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    Cut,
    Mend,
    Link(LinkConfig),
}

/// The lines of stdin, as they come. There is no more once it has ended.
pub(super) fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(WAITING);
    // A thread of its own, which nobody waits for: a read from a terminal cannot be given up.
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Does what a line says, and says what was done; nothing for an empty line.
pub(super) fn obey(line: &str, edges: &[(NodeName, Arc<UdpRelay>)]) -> Option<String> {
    if line.trim().is_empty() {
        return None;
    }
    let done = parse(line).and_then(|order| {
        let meant = |name: &NodeName| order.node.as_ref().is_none_or(|node| node == name);
        let mut names = Vec::new();
        for (name, relay) in edges.iter().filter(|(name, _)| meant(name)) {
            let link = relay.link();
            relay.set_link(match order.change {
                Change::Cut => link.with_up(false),
                Change::Mend => link.with_up(true),
                Change::Link(config) => config.into(),
            });
            names.push(name.as_str());
        }
        match order.node {
            Some(node) if names.is_empty() => Err(format!("there is no {node}")),
            _ => Ok(format!("{}: {}", line.trim(), names.join(", "))),
        }
    });
    Some(done.unwrap_or_else(|error| error))
}

fn parse(line: &str) -> Result<Order, String> {
    let mut words = line.split_whitespace();
    let change = match words.next() {
        Some("cut") => Change::Cut,
        Some("mend") => Change::Mend,
        Some("link") => {
            let link = words.next().ok_or("say which link: link 1mbit,200ms,2%")?;
            Change::Link(link.parse().map_err(|error| format!("{error}"))?)
        }
        other => {
            let other = other.unwrap_or_default();
            return Err(format!("{other:?} is none of: cut, mend, link 1mbit,200ms,2%"));
        }
    };
    let node = words.next().map(str::parse).transpose();
    let node = node.map_err(|error| format!("{error}"))?;
    match words.next() {
        Some(more) => Err(format!("{more:?} is one word too many")),
        None => Ok(Order { change, node }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_changes_the_links_of_one_node_or_of_all() {
        let order = |line| parse(line).map(|order| (order.change, order.node.map(|node| node.to_string())));
        assert_eq!(order("cut"), Ok((Change::Cut, None)));
        assert_eq!(order(" mend  edge2 "), Ok((Change::Mend, Some("edge2".to_owned()))));
        let link = "1mbit,200ms,2%".parse().unwrap();
        assert_eq!(order("link 1mbit,200ms,2%"), Ok((Change::Link(link), None)));
    }

    #[test]
    fn a_line_that_means_nothing_is_answered_with_what_would() {
        for (line, part) in [
            ("snip", "none of: cut, mend, link"),
            ("link", "say which link"),
            ("link fast", "fast"),
            ("cut edge1 edge2", "too many"),
            ("cut -", "-"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[tokio::test]
    async fn what_is_cut_is_down_until_it_is_mended_and_keeps_its_rate() {
        let link: LinkConfig = "3mbit,60ms".parse().unwrap();
        let nowhere = ([127, 0, 0, 1], 9).into();
        let mut edges = Vec::new();
        for name in ["edge1", "edge2"] {
            let relay = UdpRelay::start(nowhere, link.into(), 1).await.unwrap();
            edges.push((name.parse().unwrap(), Arc::new(relay)));
        }
        let up = || edges.iter().map(|(_, relay)| relay.link().up.up).collect::<Vec<_>>();
        assert_eq!(obey("cut edge2", &edges).as_deref(), Some("cut edge2: edge2"));
        assert_eq!(up(), [true, false]);
        assert_eq!(obey("mend", &edges).as_deref(), Some("mend: edge1, edge2"));
        assert_eq!(up(), [true, true]);
        assert_eq!(edges[1].1.link(), link.into());
        assert_eq!(obey("cut edge3", &edges).as_deref(), Some("there is no edge3"));
        assert_eq!(obey("  ", &edges), None);
    }
}
