//! Which losses say that a queue is full, and which only that a link is bad.

use std::time::Duration;

/// One part in so many may be lost by chance: what radio and satellite links do. Policers and queues that overflow take more
/// (BBRv2 draws its line at one in fifty, and keeps probing beyond).
const BY_CHANCE: u64 = 20;
/// A link that has carried less than this since it was new may still have bad luck, in bytes.
const FIRST: u64 = 128 * 1024;
/// What is looked back on, in bytes.
const LOOKED_BACK_ON: u64 = 512 * 1024;
/// Round trips are never more even than this.
const UNEVEN: Duration = Duration::from_millis(2);

/// What a path has carried and lost of late.
#[derive(Debug, Clone, Default)]
pub(super) struct Losses {
    carried: u64,
    lost: u64,
    /// Something stands in line on the way.
    queued: bool,
}

impl Losses {
    /// So many bytes arrived; round trips take this long now, and took this long at the least.
    pub(super) fn carried(&mut self, bytes: u64, round_trip: Duration, least: Duration) {
        self.carried += bytes;
        self.queued = round_trip.saturating_sub(least) > UNEVEN.max(least / 8);
        if self.carried > LOOKED_BACK_ON {
            self.carried /= 2;
            self.lost /= 2;
        }
    }

    /// So many bytes were lost.
    pub(super) fn lost(&mut self, bytes: u64) {
        self.lost += bytes;
    }

    /// Whether what was lost is no more than a bad link loses, while nothing stands in line. To send less would not help then.
    pub(super) fn are_chance(&self) -> bool {
        !self.queued && self.lost * BY_CHANCE <= self.carried + FIRST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: u64 = 1200;
    const LEAST: Duration = Duration::from_millis(800);

    #[test]
    fn two_in_a_hundred_are_chance_where_nothing_stands_in_line() {
        let mut losses = Losses::default();
        for _ in 0..1000 {
            losses.carried(49 * PACKET, LEAST + Duration::from_millis(50), LEAST);
            losses.lost(PACKET);
            assert!(losses.are_chance(), "{losses:?}");
        }
    }

    #[test]
    fn the_first_packet_that_is_lost_on_a_new_link_is_chance() {
        let mut losses = Losses::default();
        losses.carried(2 * PACKET, LEAST, LEAST);
        losses.lost(PACKET);
        assert!(losses.are_chance());
    }

    #[test]
    fn a_loss_while_packets_stand_in_line_is_a_full_queue() {
        let mut losses = Losses::default();
        losses.carried(1000 * PACKET, LEAST + Duration::from_millis(170), LEAST);
        losses.lost(PACKET);
        assert!(!losses.are_chance());
        losses.carried(PACKET, LEAST, LEAST);
        assert!(losses.are_chance(), "the queue has drained");
    }

    #[test]
    fn one_in_ten_is_a_policer_and_is_forgotten_once_it_lets_everything_through() {
        let mut losses = Losses::default();
        for _ in 0..100 {
            losses.carried(9 * PACKET, LEAST, LEAST);
            losses.lost(PACKET);
        }
        assert!(!losses.are_chance());
        for _ in 0..100 {
            losses.carried(20 * PACKET, LEAST, LEAST);
        }
        assert!(losses.are_chance());
    }
}
