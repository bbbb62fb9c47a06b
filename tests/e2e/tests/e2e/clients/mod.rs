/// Classes that callers choose.
mod classes;
/// curl and sockets: CONNECT, plain proxying, SOCKS5.
mod http;
/// kubectl, to an API server behind a NAT.
pub(crate) mod kubectl;
/// What a client is told when it does not get there.
mod refusals;
/// Scrapes of metrics, and compressed services.
mod scrapes;
/// OpenSSH.
pub(crate) mod ssh;
/// Machines behind an edge, by address.
mod subnets;
/// DNS and iperf3 through UDP forwards.
mod udp;
/// Client certificates and tokens of identity providers.
mod users;
/// Ports whose host or target decides, and clients that show no credential.
mod ways;
/// WebSocket.
mod websocket;
