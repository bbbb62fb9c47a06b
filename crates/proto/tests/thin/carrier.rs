//! A carrier in the manner of QUIC, without handshake and flow control: packets, acknowledgements, loss recovery, a window.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tunnel_proto::{RateModel, StreamId, TRANSIT, Timing, Transit, decode_datagram};

/// What headers take of each packet, all layers.
pub(crate) const HEADERS: u64 = 28 + 36;
/// Data in a full packet.
pub(crate) const DATA: usize = 1452 - 36;
/// As quinn acknowledges at this project's settings.
const ACK_EVERY: usize = 10;
const ACK_DELAY: Duration = Duration::from_millis(25);
/// Packets that are acknowledged at once.
const HANDSHAKE: u64 = 2;
/// RFC 9002 section 6.1.
const REORDERED: u64 = 3;
const INITIAL_WINDOW: u64 = 14_720;
/// What a connection holds at most, in flight and waiting.
const HELD_MOST: u64 = 2 * 1024 * 1024;
/// What quinn's pacer lets out at once: at least and at most, and otherwise so much time's worth.
const BURST: [u64; 2] = [10 * 1452, 256 * 1452];
const BURST_TIME: Duration = Duration::from_millis(2);

/// A piece of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Piece {
    pub(crate) id: StreamId,
    pub(crate) number: u64,
    pub(crate) len: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Packet {
    number: Option<u64>,
    pieces: Vec<Piece>,
    acks: Vec<u64>,
    datagrams: Vec<Bytes>,
}

impl Packet {
    /// A full packet of somebody else.
    pub(crate) fn foreign() -> Self {
        let id = StreamId::MAX;
        let pieces = vec![Piece {
            id,
            number: 0,
            len: DATA,
        }];
        Self {
            number: None,
            pieces,
            acks: Vec::new(),
            datagrams: Vec::new(),
        }
    }
}

impl tunnel_linkem::Packet for Packet {
    fn wire_len(&self) -> u64 {
        let data: usize = self.pieces.iter().map(|piece| piece.len).sum();
        // A few ranges of acknowledgements in a packet of their own.
        let datagrams: usize = self.datagrams.iter().map(|datagram| 2 + datagram.len()).sum();
        HEADERS + (data + datagrams) as u64 + if self.acks.is_empty() { 0 } else { 12 }
    }

    fn payload_mut(&mut self) -> &mut [u8] {
        &mut []
    }
}

#[derive(Debug)]
struct InFlight {
    sent: Instant,
    bytes: u64,
    app_limited: bool,
    pieces: Vec<Piece>,
}

/// What is kept of a stream: all from the first byte that was not acknowledged, also what was.
#[derive(Debug, Default)]
struct Held {
    from: u64,
    sent: u64,
    /// Where pieces begin that are on their way.
    flying: BTreeSet<u64>,
}

#[derive(Debug)]
pub(crate) struct Carrier {
    pub(crate) model: RateModel,
    transit: Transit,
    /// As a peer would that knows no such datagrams.
    pub(crate) ignores_datagrams: bool,
    datagrams: Vec<Bytes>,
    /// What waits to be sent, again or for the first time.
    again: VecDeque<Piece>,
    fresh: VecDeque<Piece>,
    next: u64,
    flying: BTreeMap<u64, InFlight>,
    in_flight: u64,
    /// Bytes on the link so far.
    sent: u64,
    held: HashMap<StreamId, Held>,
    held_bytes: u64,
    newest_acked: Option<u64>,
    smoothed: Option<Duration>,
    /// A loss-based window, as it would be without a model.
    window: u64,
    threshold: u64,
    recovered: Instant,
    /// When the next packet may go, as quinn paces by its window.
    paced: Instant,
    unacked: usize,
    arrived: BTreeSet<u64>,
    ack_due: Option<Instant>,
    seen: BTreeSet<Piece>,
    /// Bytes that went out without a turn since somebody asked: acknowledgements, datagrams, and what was lost, which goes
    /// out again.
    unasked: u64,
}

impl Carrier {
    pub(crate) fn new(model: RateModel, now: Instant) -> Self {
        let mut transit = Transit::new(now);
        Self {
            model,
            datagrams: transit.stamp(now).into_iter().collect(),
            transit,
            ignores_datagrams: false,
            again: VecDeque::new(),
            fresh: VecDeque::new(),
            next: 0,
            flying: BTreeMap::new(),
            in_flight: 0,
            sent: 0,
            held: HashMap::new(),
            held_bytes: 0,
            newest_acked: None,
            smoothed: None,
            window: INITIAL_WINDOW,
            threshold: u64::MAX,
            recovered: now,
            paced: now,
            unacked: 0,
            arrived: BTreeSet::new(),
            ack_due: None,
            seen: BTreeSet::new(),
            unasked: 0,
        }
    }

    /// Takes a piece, which may be longer than a packet.
    pub(crate) fn write(&mut self, piece: Piece, now: Instant) {
        self.held_bytes += piece.len as u64;
        self.fresh.push_back(piece);
        self.datagrams.extend(self.transit.wrote(piece.len, now));
    }

    /// Whether a stream may write more: what is held is kept near the window.
    pub(crate) fn has_room(&self) -> bool {
        self.held_bytes < self.model.buffer_beside(self.window).min(HELD_MOST)
    }

    pub(crate) fn take_unasked(&mut self) -> u64 {
        std::mem::take(&mut self.unasked)
    }

    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<Packet> {
        let window = self.model.window_beside(self.window);
        let mut pieces = Vec::new();
        if self.in_flight < window && self.paced <= now {
            let mut room = DATA;
            while room > 0 {
                let from = if self.again.is_empty() {
                    &mut self.fresh
                } else {
                    &mut self.again
                };
                let Some(piece) = from.front_mut() else { break };
                let len = piece.len.min(room);
                room -= len;
                pieces.push(Piece { len, ..*piece });
                let held = self.held.entry(piece.id).or_default();
                held.flying.insert(piece.number);
                held.sent = held.sent.max(piece.number + len as u64);
                piece.len -= len;
                piece.number += len as u64;
                if piece.len == 0 {
                    from.pop_front();
                }
            }
        }
        let ack = self.ack_due.is_some_and(|due| due <= now) || self.unacked >= ACK_EVERY;
        let datagrams = std::mem::take(&mut self.datagrams);
        if pieces.is_empty() && !ack && datagrams.is_empty() {
            return None;
        }
        let acks = if ack || self.unacked > 0 {
            self.unacked = 0;
            self.ack_due = None;
            // Old ones go, as ranges do.
            while self.arrived.len() > 64 {
                self.arrived.pop_first();
            }
            self.arrived.iter().copied().collect()
        } else {
            Vec::new()
        };
        let number = (!pieces.is_empty() || !datagrams.is_empty()).then(|| {
            let number = self.next;
            self.next += 1;
            number
        });
        let packet = Packet {
            number,
            pieces,
            acks,
            datagrams,
        };
        let bytes = tunnel_linkem::Packet::wire_len(&packet);
        let data: usize = packet.pieces.iter().map(|piece| piece.len).sum();
        let turned = if data > 0 { HEADERS + data as u64 } else { 0 };
        self.unasked += bytes - turned;
        self.sent += bytes;
        if let Some(number) = number {
            self.in_flight += bytes;
            if let Some(smoothed) = self.smoothed {
                let time = |bytes: u64| smoothed.mul_f64(bytes as f64 / window as f64 / 1.25);
                let burst = BURST_TIME.clamp(time(BURST[0]), time(BURST[1]));
                self.paced = self.paced.max(now.checked_sub(burst).unwrap()) + time(bytes);
            }
            let flying = InFlight {
                sent: now,
                bytes,
                app_limited: self.again.is_empty() && self.fresh.is_empty(),
                pieces: packet.pieces.clone(),
            };
            self.flying.insert(number, flying);
        }
        Some(packet)
    }

    /// Gives the pieces that are new.
    pub(crate) fn handle_packet(&mut self, packet: Packet, now: Instant) -> Vec<Piece> {
        for datagram in packet.datagrams {
            if self.ignores_datagrams {
                break;
            }
            let (flow, packet) = decode_datagram(datagram).unwrap();
            assert_eq!(flow, TRANSIT);
            match self.transit.handle(&packet, now) {
                Some(Timing::Answer(answer)) => self.datagrams.push(answer),
                Some(Timing::Took { there, back }) => {
                    self.model.handle_transit(there, back, now);
                    self.datagrams.extend(self.transit.sent(self.sent, now));
                }
                None => {}
            }
        }
        self.handle_acks(&packet.acks, now);
        let Some(number) = packet.number else { return Vec::new() };
        self.arrived.insert(number);
        self.unacked += 1;
        let delay = if number < HANDSHAKE { Duration::ZERO } else { ACK_DELAY };
        self.ack_due.get_or_insert(now + delay);
        let mut new = packet.pieces;
        new.retain(|piece| self.seen.insert(*piece));
        new
    }

    fn handle_acks(&mut self, acks: &[u64], now: Instant) {
        let mut any = false;
        let app_limited = self.again.is_empty() && self.fresh.is_empty();
        for number in acks {
            let Some(acked) = self.flying.remove(number) else {
                continue;
            };
            any = true;
            self.in_flight -= acked.bytes;
            for piece in &acked.pieces {
                let held = self.held.get_mut(&piece.id).unwrap();
                held.flying.remove(&piece.number);
                let from = held.flying.first().copied().unwrap_or(held.sent);
                self.held_bytes -= from - held.from;
                held.from = from;
            }
            if self.newest_acked.is_none_or(|newest| newest < *number) {
                self.newest_acked = Some(*number);
                let sample = now - acked.sent;
                self.smoothed = Some(self.smoothed.map_or(sample, |s| (s * 7 + sample) / 8));
            }
            self.model
                .handle_ack(acked.sent, acked.bytes, app_limited && acked.app_limited);
            if !acked.app_limited && acked.sent > self.recovered {
                self.window += if self.window < self.threshold {
                    acked.bytes
                } else {
                    1500 * acked.bytes / self.window
                };
            }
        }
        if any {
            self.detect_losses(now);
            self.model.handle_acks_end(now);
        }
    }

    fn detect_losses(&mut self, now: Instant) {
        let (Some(newest), Some(smoothed)) = (self.newest_acked, self.smoothed) else {
            return;
        };
        let patience = smoothed * 9 / 8;
        let lost: Vec<u64> = self
            .flying
            .range(..newest)
            .filter(|(number, flying)| **number + REORDERED <= newest || flying.sent + patience <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in lost {
            self.lose(number, now);
        }
    }

    fn lose(&mut self, number: u64, now: Instant) {
        let Some(lost) = self.flying.remove(&number) else {
            return;
        };
        self.in_flight -= lost.bytes;
        self.unasked += lost.bytes;
        self.again.extend(lost.pieces);
        self.model.handle_loss(lost.bytes);
        if !self.model.losses_are_chance() && lost.sent > self.recovered {
            self.recovered = now;
            self.window = (self.window * 7 / 10).max(2 * 1500);
            self.threshold = self.window;
        }
    }

    /// The tail of what was sent, of which no acknowledgement tells (RFC 9002 section 6.2).
    fn probe_due(&self) -> Option<Instant> {
        let oldest = self.flying.values().next_back()?.sent;
        Some(oldest + self.smoothed.unwrap_or(Duration::from_millis(333)) * 3 + ACK_DELAY)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let waits = !self.again.is_empty() || !self.fresh.is_empty();
        let paced = Some(self.paced).filter(|_| waits && self.in_flight < self.model.window_beside(self.window));
        [self.ack_due, self.probe_due(), paced].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.probe_due().is_some_and(|due| due <= now) {
            let all: Vec<u64> = self.flying.keys().copied().collect();
            for number in all {
                self.lose(number, now);
            }
        }
    }
}
