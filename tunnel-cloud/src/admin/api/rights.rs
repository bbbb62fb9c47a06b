//! Rights and streams.

use serde::{Deserialize, Serialize};
use tunnel_model::{Class, NodeName, TraceId};

pub use crate::{dial::explain::HopName, reload::Reloaded};

/// `POST /v1/policy/test` and `POST /v1/explain`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Who asks: `user:NAME`, `group:NAME`, `cidr:ADDRESS` or `node:NAME`.
    pub subject: String,
    /// What for: `NODE:TARGET`, or a host and port as callers write them.
    pub destination: String,
}

/// What the rules say.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Decision {
    /// Whether a rule allows it.
    pub allowed: bool,
    /// The first rule that does.
    pub rule: Option<RuleView>,
    /// What the nearest rules lack, if none does.
    pub why: Option<String>,
}

/// A rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RuleView {
    /// Its place in the configuration file, from 0.
    pub index: usize,
    /// What it says.
    pub text: String,
}

/// The way of a dial.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explanation {
    /// Every hop, in order.
    pub hops: Vec<Hop>,
}

/// One hop of a dial.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hop {
    /// Which.
    pub hop: HopName,
    /// What it says.
    pub verdict: HopVerdict,
    /// The reason's code, if it says no.
    pub code: Option<String>,
    /// What it found, or why it says no.
    pub detail: String,
}

/// What a hop says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HopVerdict {
    /// Yes.
    Ok,
    /// No.
    No,
    /// It was not asked: one before it said no.
    NotAsked,
}

/// `GET /v1/streams`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StreamList {
    /// Oldest first.
    pub streams: Vec<StreamView>,
}

/// An open stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StreamView {
    /// Its number in this run of the gateway.
    pub id: u64,
    /// Who has it.
    pub principal: String,
    /// The node it leads to.
    pub node: NodeName,
    /// What on the node.
    pub target: String,
    /// How urgent it is.
    pub class: Class,
    /// How it was asked for.
    pub way: String,
    /// When it was opened.
    pub since: String,
    /// Bytes from the caller to the target.
    pub bytes_up: u64,
    /// Bytes from the target to the caller.
    pub bytes_down: u64,
    /// The caller's trace.
    pub trace: TraceId,
    /// Whether it runs now.
    #[serde(default)]
    pub state: StreamState,
    /// Since when it waits, if it does.
    #[serde(default)]
    pub waiting_since: Option<String>,
}

/// Whether a stream runs now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamState {
    /// Its node is connected.
    #[default]
    Running,
    /// Its node's connection was lost; it goes on over the next one.
    Waiting,
}

impl StreamState {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
        }
    }
}

/// `GET /v1/streams/sample`: what passes in a second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Streams that are open.
    pub streams: usize,
    /// The busiest first.
    pub rows: Vec<SampleRow>,
}

/// The open streams that have one thing in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRow {
    /// What kind of thing: `node`, `class` or `principal`.
    pub by: String,
    /// Which.
    pub name: String,
    /// How many they are.
    pub streams: usize,
    /// How many of them wait for a node to connect again.
    pub waiting: usize,
    /// Bytes a second from callers to targets.
    pub up_per_second: u64,
    /// Bytes a second from targets to callers.
    pub down_per_second: u64,
    /// Bytes of these streams so far.
    pub bytes: u64,
}

/// `POST /v1/streams/kill`: the streams that are all of what is said.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kill {
    /// The stream of this number.
    #[serde(default)]
    pub id: Option<u64>,
    /// Those of this principal, written as `streams ls` lists it.
    #[serde(default)]
    pub principal: Option<String>,
    /// Those to this node.
    #[serde(default)]
    pub node: Option<NodeName>,
}

/// What became of them.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Killed {
    /// How many were cut.
    pub streams: usize,
}
