//! Streams whose bytes are compressed between the gateway and an edge, or are scrapes said by their differences.

use std::sync::Arc;

use tunnel_carrier::Stream;
use tunnel_encoding::{
    Budget, Compressed,
    scrape::{Room, Scraped, Scrapes},
};
use tunnel_model::{Destination, Encoding};

use super::{Far, metrics::DialMetrics};

/// What is kept of the pages of one node's targets, in bytes: some twice the size of each page that is scraped.
const PAGES_OF_A_NODE: usize = 16 << 20;

/// And of all nodes'. Beyond it, whoever was not scraped for longest costs a whole page the next time.
const PAGES: usize = 512 << 20;

/// What compressed streams may take, in bytes; beyond it they go on uncompressed.
const COMPRESSION: usize = 512 << 20;

/// What a gateway keeps for them.
#[derive(Debug)]
pub(super) struct Encodings {
    scrapes: Arc<Scrapes>,
    compression: Budget,
}

impl Encodings {
    pub(super) fn new(metrics: &DialMetrics) -> Self {
        let room = Room {
            of_one: PAGES_OF_A_NODE,
            in_all: PAGES,
        };
        let metrics = metrics.clone();
        Self {
            scrapes: Arc::new(Scrapes::new(room, move |served| metrics.served(served))),
            compression: Budget::new(COMPRESSION),
        }
    }

    /// What an edge is asked for that offers this.
    pub(super) fn possible(&self, offered: Encoding) -> Encoding {
        match offered {
            Encoding::Compressed if !self.compression.has_room() => Encoding::Raw,
            offered => offered,
        }
    }

    /// A stream that was opened so, as callers see it.
    pub(super) fn far(&self, stream: Stream, encoding: Encoding, destination: &Destination) -> Far {
        match encoding {
            Encoding::Raw => Far::Node(stream),
            Encoding::Compressed => Far::Compressed(Box::new(Compressed::new(stream, &self.compression))),
            Encoding::Scrapes => {
                let (node, target) = (destination.node.to_string(), destination.target.to_string());
                let scraped = Scraped::new(stream, Arc::clone(&self.scrapes), node, target, Stream::reset);
                Far::Scrapes(Box::new(scraped))
            }
        }
    }
}
