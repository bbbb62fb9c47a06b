//! Servers for the hosts of a lab. Each prints one line of JSON once it listens, and runs until it
//! is killed.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::{Parser, ValueEnum};
use tokio::net::TcpListener;

mod echo;
mod http;
mod ws_echo;

#[derive(Parser)]
struct Args {
    service: Service,
    /// 0 takes any free one; the line of JSON says which.
    port: u16,
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    bind: IpAddr,
}

#[derive(Clone, Copy, ValueEnum)]
enum Service {
    Echo,
    Http,
    WsEcho,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let listener = TcpListener::bind(SocketAddr::new(args.bind, args.port)).await?;
    let ready = serde_json::json!({ "ready": listener.local_addr()? });
    writeln!(std::io::stdout(), "{ready}")?;
    match args.service {
        Service::Echo => echo::serve(listener).await,
        Service::Http => http::serve(listener).await,
        Service::WsEcho => ws_echo::serve(listener).await,
    }
}
