//! The first frame of an opener's direction, as it stands on the wire.

use bytes::Bytes;
use prost::Message as _;
use tunnel_model::{Class, TraceId};

use super::{
    DecodeError, Header, Open, clip, malformed, read_encoding, read_protocol, wire, write_encoding, write_protocol,
};
use crate::{frame, stream::StreamId};

impl Header {
    /// As a frame.
    pub(crate) fn encode(&self) -> Bytes {
        frame::encode(&match self {
            Self::Open { id, open, again } => wire::Header {
                open: Some(open.to_wire(*id)),
                resume: None,
                again: *again,
            },
            Self::Resume(position) => wire::Header {
                open: None,
                resume: Some(position.into()),
                again: false,
            },
        })
    }

    /// Reads the content of a stream's first frame.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let header = wire::Header::decode(frame).map_err(malformed)?;
        if let Some(position) = header.resume {
            return Ok(Self::Resume(position.into()));
        }
        let (id, open) = Open::from_wire(header.open.ok_or(DecodeError::Field("header.open"))?)?;
        let again = header.again;
        Ok(Self::Open { id, open, again })
    }
}

impl Open {
    fn to_wire(&self, id: StreamId) -> wire::Open {
        wire::Open {
            stream: id.0,
            target: self.target.to_string(),
            protocol: write_protocol(self.protocol),
            encoding: write_encoding(self.encoding),
            class: self.class as u32,
            trace: self.trace.as_bytes().to_vec(),
            principal: self.principal.clone(),
            node: self.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }

    fn from_wire(open: wire::Open) -> Result<(StreamId, Self), DecodeError> {
        let id = StreamId(open.stream);
        if id > StreamId::MAX {
            return Err(DecodeError::Field("open.stream"));
        }
        let trace = <[u8; 16]>::try_from(open.trace.as_slice()).map_err(|_| DecodeError::Field("open.trace"))?;
        let read = Self {
            target: open.target.parse().map_err(|_| DecodeError::Field("open.target"))?,
            protocol: read_protocol(open.protocol).ok_or(DecodeError::Field("open.protocol"))?,
            encoding: read_encoding(open.encoding).ok_or(DecodeError::Field("open.encoding"))?,
            class: usize::try_from(open.class)
                .ok()
                .and_then(|i| Class::ALL.get(i).copied())
                .unwrap_or_default(),
            trace: TraceId::from_bytes(trace),
            principal: clip(open.principal),
            node: match open.node.as_str() {
                "" => None,
                name => Some(name.parse().map_err(|_| DecodeError::Field("open.node"))?),
            },
        };
        Ok((id, read))
    }
}
