//! The messages of enrolment as protobuf. Field numbers are never reused; unknown fields are ignored.

use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Request {
    #[prost(oneof = "RequestKind", tags = "1, 2")]
    pub(crate) kind: Option<RequestKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum RequestKind {
    #[prost(message, tag = "1")]
    Enrol(Enrol),
    #[prost(message, tag = "2")]
    Renew(Renew),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Enrol {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) token_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) proof: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) certificate_request: Vec<u8>,
    #[prost(string, tag = "4")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Renew {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) certificate_request: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Reply {
    #[prost(oneof = "ReplyKind", tags = "1, 2")]
    pub(crate) kind: Option<ReplyKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum ReplyKind {
    #[prost(message, tag = "1")]
    Issued(Issued),
    #[prost(message, tag = "2")]
    Refused(Refused),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Issued {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(crate) chain: Vec<Vec<u8>>,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(uint64, tag = "3")]
    pub(crate) time: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Refused {
    #[prost(uint32, tag = "1")]
    pub(crate) reason: u32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}
