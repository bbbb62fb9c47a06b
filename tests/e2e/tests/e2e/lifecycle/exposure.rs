use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;
use tunnel_e2e::{Need, Site, require};

use crate::world::{PUBLIC, SOON, World};

/// How long a port that drops packets would keep the scan waiting; one that is closed answers at once.
const SILENT: Duration = Duration::from_millis(200);

/// A QUIC packet of a version that nobody speaks, to which every server has an answer (RFC 9000 section 6.1).
const UNKNOWN_VERSION: [u8; 5] = [0xc0, 0x1a, 0x2a, 0x3a, 0x4a];
const SMALLEST_INITIAL: usize = 1_200;

/// T3: not of its proxy either, which is on loopback unless another address is written.
#[tokio::test]
async fn t3_a_neighbour_finds_no_port_of_the_agent() -> anyhow::Result<()> {
    require!(Need::Lab);
    let world = World::start([Site::new()]).await?;
    let mut edge = world.join(1).await?;
    let text = fs::read_to_string(&edge.config)?;
    fs::write(&edge.config, text + "\n[proxy]\n")?;
    edge.start(&world.lab)?;
    edge.wait_connected(&world.lab).await?;
    let proxy = SocketAddr::from(([127, 0, 0, 1], 3128));
    world.lab.host(&edge.host).wait_for_port(proxy, SOON).await?;
    let target = world.lab.host(&edge.host).addr();
    // One that is found, to know that the scan finds.
    let open = world.lab.host(&edge.host).listen(8100)?;
    let neighbour = world.lab.host("lan1");
    let found = neighbour.enter(|| {
        let open = |port: &u16| TcpStream::connect_timeout(&SocketAddr::from((target, *port)), SILENT).is_ok();
        Ok((1..=u16::MAX).filter(open).collect::<Vec<_>>())
    })?;
    assert_eq!(found, [8100]);
    drop(open);

    // Of UDP there is the one socket from which it dials, and nobody answers there.
    let ports = udp_ports(edge.agent()?.pid().as_raw())?;
    assert_eq!(ports.len(), 1, "{ports:?}");
    assert!(!knock(&world, SocketAddr::from((target, ports[0]))).await?);
    assert!(knock(&world, world.gw().at(PUBLIC)).await?, "a server answers");
    Ok(())
}

/// The UDP ports of a process's network that are bound.
fn udp_ports(pid: i32) -> anyhow::Result<Vec<u16>> {
    let mut ports = Vec::new();
    for table in ["udp", "udp6"] {
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/net/{table}")) else {
            continue;
        };
        for line in text.lines().skip(1) {
            let local = line
                .split_whitespace()
                .nth(1)
                .and_then(|local| local.rsplit_once(':'))
                .context("no port")?;
            ports.push(u16::from_str_radix(local.1, 16)?);
        }
    }
    Ok(ports)
}

/// Whether a QUIC server answers there: the gateway's answer, which comes from farther away, is waited for meanwhile.
async fn knock(world: &World, to: SocketAddr) -> anyhow::Result<bool> {
    let mut packet = vec![0; SMALLEST_INITIAL];
    packet[..UNKNOWN_VERSION.len()].copy_from_slice(&UNKNOWN_VERSION);
    // Both connection ids have 8 bytes.
    packet[5] = 8;
    packet[14] = 8;
    let socket = world.lab.host("lan1").udp(0)?;
    let gateway = world.gw().at(PUBLIC);
    let mut buffer = [0; SMALLEST_INITIAL];
    socket.send_to(&packet, to).await?;
    let mut answered = false;
    for _ in 0..3 {
        socket.send_to(&packet, gateway).await?;
        let (_, from) = timeout(SOON, socket.recv_from(&mut buffer))
            .await
            .context("the gateway is silent")??;
        answered |= from == to;
    }
    Ok(answered)
}
