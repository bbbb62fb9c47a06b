//! Losses of the link between an edge and its gateway, as its journal keeps them.

use std::{fmt, time::Duration};

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $wire:literal, $code:literal;)*) => {
        /// Why a link was lost, or cannot be had. The number stands on the wire and is never given a second meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub enum LossCause {
            $($(#[$doc])* $name = $wire,)*
        }

        impl LossCause {
            /// Every cause.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The cause as text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The cause of this code; one that we do not know reads as [`LossCause::Other`].
            pub fn from_code(code: &str) -> Self {
                match code {
                    $($code => Self::$name,)*
                    _ => Self::Other,
                }
            }

            /// The cause with this wire number; what a newer peer may say that we do not know reads as
            /// [`LossCause::Other`].
            pub const fn from_wire(number: u32) -> Self {
                match number {
                    $($wire => Self::$name,)*
                    _ => Self::Other,
                }
            }
        }
    };
}

causes! {
    /// None of the others; the message knows more.
    #[default]
    Other = 1, "other";
    /// This machine had no way to the gateway.
    NoRoute = 2, "no-route";
    /// The gateway's name led to no address.
    Dns = 3, "dns";
    /// The proxy on the way did not let the edge through.
    Proxy = 4, "proxy";
    /// The two ends did not accept each other's certificates or protocol.
    Tls = 5, "tls";
    /// The gateway fell silent.
    Timeout = 6, "timeout";
    /// The gateway lives again, and knows nothing of the connection.
    GatewayRestart = 7, "gateway-restart";
    /// The edge's own address changed, and the connection did not survive that.
    AddressChange = 8, "address-change";
    /// The gateway said that it leaves.
    GatewayLeft = 9, "gateway-left";
    /// Another connection with the same identity took over.
    Superseded = 10, "superseded";
    /// The gateway turned the edge away.
    Refused = 11, "refused";
    /// The edge was stopped.
    EdgeStopped = 12, "edge-stopped";
    /// The edge was told to use another gateway.
    Reconfigured = 13, "reconfigured";
}

impl fmt::Display for LossCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for LossCause {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for LossCause {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = String::deserialize(deserializer)?;
        Ok(Self::from_code(&code))
    }
}

/// A loss of the link that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkLoss {
    /// Its place in the edge's journal, from 1 on.
    pub number: u64,
    /// Why.
    pub cause: LossCause,
    /// When it began by the edge's clock, in milliseconds since 1970-01-01 UTC.
    pub begun_millis: u64,
    /// How long it took until a gateway was greeted again.
    pub lasted: Duration,
    /// Bytes that the edge sent on the connection that was lost, as UDP or TCP payload.
    pub sent: u64,
    /// Bytes that it received there.
    pub received: u64,
    /// What was said at the time, in one line.
    pub message: String,
}

impl LinkLoss {
    /// The longest message that is kept, in bytes.
    pub const MAX_MESSAGE: usize = 200;

    /// A message cut to its limit.
    pub fn clip(message: &str) -> String {
        let mut clipped = String::new();
        for c in message.chars().filter(|c| !c.is_control()) {
            if clipped.len() + c.len_utf8() > Self::MAX_MESSAGE {
                break;
            }
            clipped.push(c);
        }
        clipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_cause_has_its_own_code_and_survives_the_wire() {
        let codes: HashSet<_> = LossCause::ALL.iter().map(|cause| cause.as_str()).collect();
        assert_eq!(codes.len(), LossCause::ALL.len());
        for &cause in LossCause::ALL {
            assert_eq!(LossCause::from_wire(cause as u32), cause);
            assert_eq!(LossCause::from_code(cause.as_str()), cause);
        }
        assert_eq!(LossCause::from_wire(0), LossCause::Other);
        assert_eq!(LossCause::from_wire(u32::MAX), LossCause::Other);
    }

    #[test]
    fn a_message_is_cut_between_characters_and_stays_one_line() {
        assert_eq!(LinkLoss::clip("a\nb"), "ab");
        assert_eq!(LinkLoss::clip(&"ü".repeat(500)).len(), LinkLoss::MAX_MESSAGE);
    }
}
