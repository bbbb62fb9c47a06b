//! What a scheduler is told.

use std::num::NonZeroU32;

use crate::rate::Rate;

/// How a [`Scheduler`](crate::Scheduler) is to sort.
#[derive(Debug, Clone)]
pub struct ScheduleConfig {
    /// How ranks divide the link.
    pub shares: Shares,
    /// What a rank may send at most.
    pub caps: Caps,
    /// The size of packets.
    pub packets: Packets,
    /// A link that carries more than this is not sorted for.
    pub thin: Rate,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            shares: Shares::default(),
            caps: Caps::default(),
            packets: Packets::default(),
            thin: Rate::THIN,
        }
    }
}

/// How ranks divide the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Percent of the link that interactive streams may take before all others, in a second.
    pub interactive_percent: u8,
    /// The weight of api.
    pub api: NonZeroU32,
    /// The weight of metrics.
    pub metrics: NonZeroU32,
    /// The weight of bulk.
    pub bulk: NonZeroU32,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            interactive_percent: 50,
            api: NonZeroU32::MIN.saturating_add(7),
            metrics: NonZeroU32::MIN.saturating_add(1),
            bulk: NonZeroU32::MIN,
        }
    }
}

impl Shares {
    pub(super) fn of_interactive(&self, link: Rate) -> Rate {
        link.scaled(f64::from(self.interactive_percent.min(100)) / 100.0)
    }

    /// The weight of a rank; `None` for the one that is not weighed.
    pub(super) fn weight(&self, rank: usize) -> Option<u64> {
        let weights = [None, Some(self.api), Some(self.metrics), Some(self.bulk)];
        weights.get(rank).copied().flatten().map(|weight| weight.get().into())
    }
}

/// What each rank may send at most, with or without a link that is thin. A long talker is bulk here too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caps {
    /// Of interactive streams.
    pub interactive: Option<Rate>,
    /// Of api.
    pub api: Option<Rate>,
    /// Of metrics.
    pub metrics: Option<Rate>,
    /// Of bulk.
    pub bulk: Option<Rate>,
}

/// How data becomes packets: what each carries, and what it costs beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packets {
    /// Bytes of data in a packet that is full, whatever else it may have to carry.
    pub data: u32,
    /// Bytes of everything else in a packet: addresses, headers, seals.
    pub headers: u32,
}

impl Packets {
    /// What IPv4 and UDP add to each, in bytes.
    pub const UDP: u32 = 28;
    /// IPv4 and TCP with timestamps.
    const TCP: u32 = 52;
    /// QUIC: a short header with a connection id of 8 bytes and a packet number of 2, the seal of 16, the head of a frame.
    const QUIC: u32 = 1 + 8 + 2 + 16 + 9;
    /// What a turn leaves free of each packet of QUIC: offsets and lengths at their longest, for which room is kept whatever they
    /// are, and an acknowledgement. What does not fit goes into a packet of its own, which would be next to empty.
    const SPARE: u32 = 24;

    /// Packets of TCP on Ethernet, and what records of TLS and frames of streams add to them.
    pub const OF_TLS: Self = Self {
        data: 1410,
        headers: 90,
    };

    /// Packets of QUIC on a path with this limit on UDP's payload.
    pub fn of_quic(mtu: u16) -> Self {
        Self {
            data: u32::from(mtu).saturating_sub(Self::QUIC + Self::SPARE).max(1),
            headers: Self::UDP + Self::QUIC,
        }
    }

    /// What so many bytes of a connection that fills its packets take on the link; they count all that is in a packet.
    pub fn on_link(self, bytes: u64) -> u64 {
        bytes + bytes / u64::from(self.data.max(1)) * u64::from(Self::TCP)
    }

    /// What so much data takes on the link.
    pub(super) fn cost(self, data: usize) -> u64 {
        let data = u64::try_from(data).unwrap_or(u64::MAX);
        let packets = data.div_ceil(self.data.max(1).into());
        data.saturating_add(packets.saturating_mul(self.headers.into()))
    }

    /// A full packet on the link.
    pub(super) fn whole(self) -> u64 {
        u64::from(self.data) + u64::from(self.headers)
    }

    /// The data of so many bytes on the link, in full packets, and at least one: what is less would be mostly headers.
    pub(super) fn data_in(self, bytes: u64) -> usize {
        let packets = (bytes / self.whole().max(1)).max(1);
        usize::try_from(packets.saturating_mul(self.data.max(1).into())).unwrap_or(usize::MAX)
    }
}

/// The smallest packets that QUIC starts with (RFC 9000 section 14).
impl Default for Packets {
    fn default() -> Self {
        Self::of_quic(1200)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_writes_pay_for_their_headers() {
        let packets = Packets {
            data: 1000,
            headers: 50,
        };
        assert_eq!(packets.cost(0), 0);
        assert_eq!(packets.cost(1), 51);
        assert_eq!(packets.cost(1000), 1050);
        assert_eq!(packets.cost(1001), 1101);
    }

    #[test]
    fn room_is_counted_in_full_packets_and_is_never_none() {
        let packets = Packets {
            data: 1000,
            headers: 50,
        };
        assert_eq!(packets.data_in(0), 1000);
        assert_eq!(packets.data_in(2099), 1000);
        assert_eq!(packets.data_in(2100), 2000);
    }
}
