//! What a link has done so far.

/// Counters of one direction since the link began. They balance at any moment:
/// `offered + duplicated = delivered + lost + overflow + cut + in_transit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Packets given to the link.
    pub offered_packets: u64,
    /// Their bytes, headers included.
    pub offered_bytes: u64,
    /// Packets that came out at the far end, copies included.
    pub delivered_packets: u64,
    /// Their bytes, headers included.
    pub delivered_bytes: u64,
    /// Packets that vanished on the wire, or were larger than it carries.
    pub lost: u64,
    /// Packets for which the queue had no room.
    pub overflow: u64,
    /// Packets that met a cut link, or were on it when it was cut.
    pub cut: u64,
    /// Packets of which a bit was flipped.
    pub corrupted: u64,
    /// Packets held back so that others could overtake them.
    pub reordered: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Packets that wait, are being sent or fly, now.
    pub in_transit: u64,
    /// Bytes that wait for the transmitter, now.
    pub queued_bytes: u64,
}

/// Counters of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairStats {
    /// From the site to the net.
    pub up: LinkStats,
    /// From the net to the site.
    pub down: LinkStats,
}
