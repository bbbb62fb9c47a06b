//! The messages as they stand on the wire. `docs/protocol.md` has them as a .proto file.

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Control {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Ping(Ping),
    #[prost(message, tag = "3")]
    Pong(Ping),
    #[prost(message, tag = "4")]
    End(End),
    #[prost(message, tag = "5")]
    Reset(Reset),
    #[prost(message, tag = "6")]
    GoAway(GoAway),
    #[prost(message, tag = "7")]
    Offer(Offer),
    #[prost(message, tag = "8")]
    Acks(Acks),
    #[prost(message, tag = "9")]
    Resume(Resume),
    #[prost(message, tag = "10")]
    Journal(Journal),
    #[prost(message, tag = "11")]
    Journaled(Journaled),
    #[prost(message, tag = "12")]
    Pace(Pace),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Pace {
    #[prost(uint64, tag = "1")]
    pub(super) bytes_per_second: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(super) min_version: u32,
    #[prost(uint32, tag = "2")]
    pub(super) max_version: u32,
    #[prost(string, repeated, tag = "3")]
    pub(super) features: Vec<String>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) session: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) software: String,
    #[prost(string, tag = "6")]
    pub(super) name: String,
    #[prost(uint64, tag = "7")]
    pub(super) unix_millis: u64,
    #[prost(uint64, tag = "8")]
    pub(super) carrier: u64,
    #[prost(bool, tag = "9")]
    pub(super) continues: bool,
    #[prost(uint64, tag = "10")]
    pub(super) resume_millis: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Journal {
    #[prost(message, repeated, tag = "1")]
    pub(super) losses: Vec<Loss>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Loss {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(uint32, tag = "2")]
    pub(super) cause: u32,
    #[prost(uint64, tag = "3")]
    pub(super) begun_unix_millis: u64,
    #[prost(uint64, tag = "4")]
    pub(super) lasted_millis: u64,
    #[prost(uint64, tag = "5")]
    pub(super) sent: u64,
    #[prost(uint64, tag = "6")]
    pub(super) received: u64,
    #[prost(string, tag = "7")]
    pub(super) message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Journaled {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Acks {
    #[prost(message, repeated, tag = "1")]
    pub(super) streams: Vec<Position>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Resume {
    #[prost(message, repeated, tag = "1")]
    pub(super) streams: Vec<Position>,
    #[prost(bool, tag = "2")]
    pub(super) last: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Position {
    #[prost(uint64, tag = "1")]
    pub(super) stream: u64,
    #[prost(uint64, tag = "2")]
    pub(super) received: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Ping {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(uint64, tag = "2")]
    pub(super) hold_millis: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct End {
    #[prost(uint64, tag = "1")]
    pub(super) stream: u64,
    #[prost(uint64, tag = "2")]
    pub(super) offset: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Reset {
    #[prost(uint64, tag = "1")]
    pub(super) stream: u64,
    #[prost(message, optional, tag = "2")]
    pub(super) refusal: Option<Refusal>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GoAway {
    #[prost(message, optional, tag = "1")]
    pub(super) refusal: Option<Refusal>,
    #[prost(uint64, optional, tag = "2")]
    pub(super) retry_after_millis: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Offer {
    #[prost(message, repeated, tag = "1")]
    pub(super) services: Vec<Service>,
    #[prost(string, repeated, tag = "2")]
    pub(super) subnets: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Service {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) target: String,
    /// 0 is TCP, 1 is UDP.
    #[prost(uint32, tag = "3")]
    pub(super) protocol: u32,
    /// How its streams travel if the gateway asks for it: 0 as they are, 1 compressed, 2 as scrapes.
    #[prost(uint32, tag = "4")]
    pub(super) encoding: u32,
    /// The class that its streams are to have where nobody says otherwise; 0 if that is as it is.
    #[prost(uint32, tag = "5")]
    pub(super) class: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Refusal {
    #[prost(uint32, tag = "1")]
    pub(super) reason: u32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Header {
    #[prost(message, optional, tag = "1")]
    pub(super) open: Option<Open>,
    #[prost(message, optional, tag = "2")]
    pub(super) resume: Option<Position>,
    #[prost(bool, tag = "3")]
    pub(super) again: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Open {
    #[prost(uint64, tag = "1")]
    pub(super) stream: u64,
    #[prost(string, tag = "2")]
    pub(super) target: String,
    #[prost(uint32, tag = "3")]
    pub(super) class: u32,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) trace: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) principal: String,
    #[prost(string, tag = "6")]
    pub(super) node: String,
    /// As of a service.
    #[prost(uint32, tag = "7")]
    pub(super) protocol: u32,
    /// As of a service.
    #[prost(uint32, tag = "8")]
    pub(super) encoding: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Reply {
    #[prost(message, optional, tag = "1")]
    pub(super) refusal: Option<Refusal>,
}
