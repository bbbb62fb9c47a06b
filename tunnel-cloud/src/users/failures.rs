//! Failed credentials by address (T5): after ten, the next are refused unseen until the address cools down.
//!
//! Each failure costs an address six seconds of its credit of a minute. What an address is: one of IPv4, or 64 bits of
//! IPv6, which is what one customer has.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What one failure costs.
const COST: Duration = Duration::from_secs(6);

/// How much may be owed: ten failures.
const CREDIT: Duration = Duration::from_secs(60);

/// How many addresses are kept. Beyond it, newcomers are judged as one.
const ADDRESSES: usize = 65_536;

/// The failures of all addresses.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<HashMap<IpAddr, Instant>>);

impl Failures {
    /// How long this address has to wait before a credential of it is looked at again.
    pub(super) fn wait(&self, ip: IpAddr, now: Instant) -> Option<Duration> {
        let owed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = owed
            .get(&network(ip))
            .or_else(|| owed.get(&CROWD).filter(|_| owed.len() >= ADDRESSES))?;
        (*until + COST)
            .checked_duration_since(now + CREDIT)
            .filter(|wait| !wait.is_zero())
    }

    /// Notes a failure.
    pub(super) fn add(&self, ip: IpAddr, now: Instant) {
        let mut owed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut network = network(ip);
        if owed.len() >= ADDRESSES && !owed.contains_key(&network) {
            owed.retain(|_, until| *until > now);
            if owed.len() >= ADDRESSES {
                network = CROWD;
            }
        }
        let until = owed.entry(network).or_insert(now);
        *until = (*until).max(now) + COST;
    }
}

/// Stands for all addresses for which there is no room. Nobody connects from it.
const CROWD: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T5
    #[test]
    fn t5_ten_failures_are_free_and_the_next_waits_for_its_turn() {
        let (failures, start) = (Failures::default(), Instant::now());
        let here = "192.0.2.1".parse().unwrap();
        for _ in 0..10 {
            assert_eq!(failures.wait(here, start), None);
            failures.add(here, start);
        }
        assert_eq!(failures.wait(here, start), Some(COST));
        let turn = start + COST;
        assert_eq!(failures.wait(here, turn), None);
        failures.add(here, turn);
        assert_eq!(failures.wait(here, turn), Some(COST));
        assert_eq!(failures.wait(here, turn + CREDIT), None);
    }

    #[test]
    fn an_address_pays_for_itself_and_a_v6_network_for_all_of_it() {
        let (failures, now) = (Failures::default(), Instant::now());
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for i in 0..10 {
            failures.add(ip(&format!("2001:db8::{i}")), now);
            failures.add(ip("::ffff:192.0.2.1"), now);
        }
        for (address, waits) in [
            ("2001:db8::ffff:1", true),
            ("2001:db8:0:1::1", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
        ] {
            assert_eq!(failures.wait(ip(address), now).is_some(), waits, "{address}");
        }
    }

    /// R1
    #[test]
    fn r1_a_flood_of_addresses_takes_bounded_room_and_is_judged_as_one() {
        let (failures, now) = (Failures::default(), Instant::now());
        let v4 = |n: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n));
        for n in 0..70_000 {
            failures.add(v4(n), now);
        }
        assert!(failures.0.lock().unwrap().len() <= ADDRESSES + 1);
        assert!(failures.wait(v4(69_999), now).is_some());
        assert_eq!(failures.wait(v4(1), now), None);
        let later = now + 200 * CREDIT * 60;
        failures.add(v4(80_000), later);
        assert!(failures.0.lock().unwrap().len() < 3);
    }
}
