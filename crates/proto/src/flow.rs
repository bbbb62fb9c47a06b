//! Packets of a flow: how they travel as datagrams of the carrier, and on the flow's stream.
//!
//! A datagram is the stream's number, as QUIC writes integers (RFC 9000 section 16), and the packet; what the carrier says of
//! its length bounds it. On the stream each packet stands behind its length, two bytes in network order.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::StreamId;

/// The longest packet of a flow, in bytes: what the length of one on a stream can say, and more than UDP carries.
pub const MAX_PACKET: usize = 0xffff;

/// The packet as a datagram of the carrier.
pub fn encode_datagram(id: StreamId, packet: &[u8]) -> Bytes {
    let mut datagram = BytesMut::with_capacity(8 + packet.len());
    match id.0 {
        0..0x40 => datagram.put_uint(id.0, 1),
        0x40..0x4000 => datagram.put_uint(id.0 | 1 << 14, 2),
        0x4000..0x4000_0000 => datagram.put_uint(id.0 | 2 << 30, 4),
        _ => datagram.put_u64(id.0.min(StreamId::MAX.0) | 3 << 62),
    }
    datagram.put_slice(packet);
    datagram.freeze()
}

/// The flow and the packet that a datagram holds; `None` if it ends within the number.
pub fn decode_datagram(mut datagram: Bytes) -> Option<(StreamId, Bytes)> {
    let length = 1 << (datagram.first()? >> 6);
    if datagram.len() < length {
        return None;
    }
    let id = datagram.get_uint(length) & (u64::MAX >> (66 - 8 * length));
    Some((StreamId(id), datagram))
}

/// Writes a packet as it stands on the flow's stream; says whether it did: none is longer than [`MAX_PACKET`].
pub fn encode_packet(packet: &[u8], stream: &mut BytesMut) -> bool {
    let Ok(length) = u16::try_from(packet.len()) else {
        return false;
    };
    stream.reserve(2 + packet.len());
    stream.put_u16(length);
    stream.put_slice(packet);
    true
}

/// Cuts what arrives on a flow's stream into packets. Holds at most one packet beyond what was pushed last.
#[derive(Debug, Default)]
pub struct PacketReader(BytesMut);

impl PacketReader {
    /// Takes what arrived next. Call [`Self::next_packet`] until it has no more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole packet, or `None` until more bytes have come.
    pub fn next_packet(&mut self) -> Option<Bytes> {
        let length = usize::from(u16::from_be_bytes([*self.0.first()?, *self.0.get(1)?]));
        if self.0.len() < 2 + length {
            return None;
        }
        self.0.advance(2);
        Some(self.0.split_to(length).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The examples of RFC 9000 section A.1.
    #[test]
    fn numbers_are_written_as_quic_writes_them() {
        for (id, written) in [
            (37, "25"),
            (15_293, "7bbd"),
            (494_878_333, "9d7f3e7d"),
            (151_288_809_941_952_652, "c2197c5eff14e88c"),
        ] {
            let hex: String = encode_datagram(StreamId(id), &[])
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            assert_eq!(hex, written);
        }
        let long = Bytes::from_static(&[0x40, 0x25, 7]);
        assert_eq!(decode_datagram(long), Some((StreamId(37), Bytes::from_static(&[7]))));
    }

    /// B2
    #[test]
    fn a_datagram_that_ends_within_its_number_is_none() {
        for id in [1, 0x40, 0x4000, 0x4000_0000, StreamId::MAX.0] {
            let whole = encode_datagram(StreamId(id), &[]);
            for end in 0..whole.len() {
                assert_eq!(decode_datagram(whole.slice(..end)), None);
            }
            assert_eq!(decode_datagram(whole), Some((StreamId(id), Bytes::new())));
        }
    }

    #[test]
    fn a_packet_that_no_length_can_say_is_not_written() {
        let mut stream = BytesMut::new();
        assert!(!encode_packet(&[0; MAX_PACKET + 1], &mut stream));
        assert!(stream.is_empty());
        assert!(encode_packet(&[0; MAX_PACKET], &mut stream));
    }

    proptest! {
        #[test]
        fn a_datagram_reads_back_as_it_was_written(id in 0..=StreamId::MAX.0, packet in prop::collection::vec(any::<u8>(), 0..100)) {
            let read = decode_datagram(encode_datagram(StreamId(id), &packet));
            prop_assert_eq!(read, Some((StreamId(id), packet.into())));
        }

        /// B2
        #[test]
        fn packets_come_out_whole_however_the_stream_was_cut(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            piece in 1usize..50,
        ) {
            let mut stream = BytesMut::new();
            for packet in &packets {
                prop_assert!(encode_packet(packet, &mut stream));
            }
            let mut reader = PacketReader::default();
            let mut read = Vec::new();
            for chunk in stream.chunks(piece) {
                reader.push(chunk);
                while let Some(packet) = reader.next_packet() {
                    read.push(packet.to_vec());
                }
            }
            prop_assert_eq!(read, packets);
        }
    }
}
