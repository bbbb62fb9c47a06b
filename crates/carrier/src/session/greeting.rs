//! A connection becomes a carrier: both ends say hello on its first stream, and agree which session goes on.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tunnel_model::{Reason, Refusal};
use tunnel_proto::{Control, Greeted, Greeting, Hello, Negotiated};

use super::Rejected;
use crate::link::{Connection, RecvStream, SendStream, StreamError};

/// The session's own messages go before all data.
const CONTROL_PRIORITY: i32 = 1000;
/// How much of the control stream is taken at once, in bytes.
pub(super) const MAX_CONTROL_READ: usize = 16 * 1024;

/// A connection whose ends have greeted each other.
#[derive(Debug)]
pub struct Carrier {
    pub(super) connection: Connection,
    pub(super) control_send: SendStream,
    pub(super) control_recv: RecvStream,
    /// Its number in the session.
    pub(super) number: u64,
    /// What came behind the hello.
    pub(super) rest: Bytes,
    /// What the peers agreed on.
    pub negotiated: Negotiated,
}

/// A connection on which an edge has said hello, and waits for the gateway's.
#[derive(Debug)]
pub struct Arriving {
    connection: Connection,
    control_send: SendStream,
    control_recv: RecvStream,
    rest: Bytes,
    /// What the edge said.
    pub hello: Hello,
}

impl Carrier {
    /// Greets the gateway. Whether it still has the session that `hello` names, its answer says:
    /// [`Hello::continues`] of [`Negotiated::peer`].
    pub async fn dial(connection: impl Into<Connection>, hello: Hello, patience: Duration) -> Result<Self, Rejected> {
        let connection = connection.into();
        let greeting = greet(&connection, &hello);
        match timeout(patience, greeting).await {
            Ok(Ok((send, recv, peer, rest))) => {
                let negotiated = agree(&connection, &hello, peer)?;
                Ok(Self {
                    connection,
                    control_send: send,
                    control_recv: recv,
                    number: hello.carrier,
                    rest,
                    negotiated,
                })
            }
            Ok(Err(rejected)) => {
                connection.close(&rejected.refusal);
                Err(rejected)
            }
            Err(_) => Err(too_slow(&connection).into()),
        }
    }
}

impl Carrier {
    /// Closes the connection, which is of no use.
    pub fn close(&self, refusal: &Refusal) {
        self.connection.close(refusal);
    }
}

impl Arriving {
    /// Waits for the edge's hello.
    pub async fn accept(connection: impl Into<Connection>, patience: Duration) -> Result<Self, Refusal> {
        let connection = connection.into();
        let heard = async {
            let (send, mut recv) = connection.accept_bi().await?;
            send.set_priority(CONTROL_PRIORITY);
            let (hello, rest) = hear(&connection, &mut recv).await.map_err(Refusal::from)?;
            Ok((send, recv, hello, rest))
        };
        match timeout(patience, heard).await {
            Ok(Ok((control_send, control_recv, hello, rest))) => Ok(Self {
                connection,
                control_send,
                control_recv,
                rest,
                hello,
            }),
            Ok(Err(refusal)) => {
                connection.close(&refusal);
                Err(refusal)
            }
            Err(_) => Err(too_slow(&connection)),
        }
    }

    /// Greets it in turn. `ours` need not say the session and the carrier, which are the edge's to name.
    pub async fn answer(mut self, ours: Hello, patience: Duration) -> Result<Carrier, Refusal> {
        let number = self.hello.carrier;
        let ours = Hello {
            session: self.hello.session,
            carrier: number,
            ..ours
        };
        let negotiated = agree(&self.connection, &ours, self.hello)?;
        let mut bytes = [Control::Hello(ours).encode()];
        match timeout(patience, self.control_send.write_all_chunks(&mut bytes)).await {
            Ok(Ok(())) => Ok(Carrier {
                connection: self.connection,
                control_send: self.control_send,
                control_recv: self.control_recv,
                number,
                rest: self.rest,
                negotiated,
            }),
            Ok(Err(_)) => Err(why_lost(&self.connection)),
            Err(_) => Err(too_slow(&self.connection)),
        }
    }

    /// Turns it away.
    pub fn refuse(self, refusal: &Refusal) {
        self.connection.close(refusal);
    }
}

async fn greet(connection: &Connection, hello: &Hello) -> Result<(SendStream, RecvStream, Hello, Bytes), Rejected> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.set_priority(CONTROL_PRIORITY);
    let mut bytes = [Control::Hello(hello.clone()).encode()];
    let written = send.write_all_chunks(&mut bytes).await;
    written.map_err(|_| why_lost(connection))?;
    let (peer, rest) = hear(connection, &mut recv).await?;
    Ok((send, recv, peer, rest))
}

/// Reads the peer's hello, and what came with it.
async fn hear(connection: &Connection, recv: &mut RecvStream) -> Result<(Hello, Bytes), Rejected> {
    let mut greeting = Greeting::default();
    loop {
        match recv.read_chunk(MAX_CONTROL_READ).await {
            Ok(Some(bytes)) => greeting.push(&bytes),
            Ok(None) => return Err(Refusal::new(Reason::Protocol, "the peer ended its control stream").into()),
            Err(StreamError::Broken(_)) => return Err(broken().into()),
            Err(StreamError::Lost) => return Err(why_lost(connection).into()),
        }
        match greeting.poll().map_err(|violation| violation.0)? {
            Some(Greeted::Hello { hello, rest }) => return Ok((hello, rest)),
            Some(Greeted::GoAway { refusal, retry_after }) => return Err(Rejected { refusal, retry_after }),
            None => {}
        }
    }
}

fn agree(connection: &Connection, ours: &Hello, peer: Hello) -> Result<Negotiated, Refusal> {
    Negotiated::between(ours, peer).inspect_err(|refusal| connection.close(refusal))
}

fn too_slow(connection: &Connection) -> Refusal {
    let refusal = Refusal::new(Reason::IdleTimeout, "the peer sent no hello in time");
    connection.close(&refusal);
    refusal
}

/// The peer broke its control stream while the connection lives.
pub(super) fn broken() -> Refusal {
    Refusal::new(Reason::Protocol, "the peer broke its control stream")
}

/// A stream went with its connection, which says why.
pub(super) fn why_lost(connection: &Connection) -> Refusal {
    connection.close_reason().unwrap_or_else(broken)
}
