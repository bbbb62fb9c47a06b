//! How callers may write an address that they should not reach: each spelling is that address and no other, or nothing.
//!
//! A gateway that reads a host in one way while something behind it reads it in another can be led anywhere (THREATS T4,
//! B14). So every host here is refused, or is one canonical IP address, or is a name of this gateway, which is never
//! looked up anywhere else.
#![allow(clippy::unwrap_used)]

mod table;

use tunnel_model::{Destination, Host, HostPort, Target};

use table::{
    SPELLINGS,
    Verdict::{Is, No, Ours},
};

/// T4, B14
#[test]
fn each_spelling_is_refused_or_is_one_canonical_address() {
    assert!(SPELLINGS.len() >= 200, "{}", SPELLINGS.len());
    let zone = "edge.example".parse().unwrap();
    for &(spelling, verdict) in SPELLINGS {
        let read = Host::parse(spelling, &zone);
        let expected = match verdict {
            No => None,
            Is(ip, port) => Some(Host::Address {
                ip: ip.parse().unwrap(),
                port,
            }),
            Ours(destination) => Some(Host::Named(destination.parse::<Destination>().unwrap())),
        };
        assert_eq!(read.clone().ok(), expected, "{spelling:?} was read as {read:?}");
    }
}

/// T4: what is refused as a host is no target's host either, but for names, which the edge resolves and judges.
#[test]
fn no_spelling_is_another_address_as_a_target() {
    for &(spelling, verdict) in SPELLINGS {
        let Ok(read) = spelling.parse::<HostPort>() else {
            continue;
        };
        match (read.ip(), verdict) {
            (Some(ip), Is(wanted, port)) => {
                assert_eq!(
                    (ip.to_canonical(), read.port()),
                    (wanted.parse().unwrap(), port),
                    "{spelling:?}"
                );
            }
            (None, _) => {
                let last = read.host().rsplit('.').next().unwrap();
                assert!(
                    last.parse::<u64>().is_err() && !last.starts_with("0x"),
                    "{spelling:?} could be an address"
                );
            }
            (Some(ip), _) => panic!("{spelling:?} is {ip} as a target and {verdict:?} as a host"),
        }
    }
}

/// T4: and none of them is a target by itself.
#[test]
fn no_spelling_is_a_target_without_a_kind() {
    for &(spelling, _) in SPELLINGS {
        assert!(spelling.parse::<Target>().is_err(), "{spelling:?}");
    }
}
