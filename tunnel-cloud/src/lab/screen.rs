//! What the lab shows.

use std::{
    io::{IsTerminal, stdout},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, interval},
};
use tunnel_daemon::output::{Table, data, message};
use tunnel_linkem::{LinkPair, PairStats};

use super::{
    console,
    world::{Handles, World},
};

/// Between two looks on a terminal, and elsewhere.
const EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// What is up, and lines to paste.
pub(super) fn welcome(world: &World) {
    let (proxy, credential) = (world.proxy(), &world.credential);
    let names: Vec<_> = world.edges.iter().map(|e| e.name.as_str()).collect();
    let first = names[0];
    let config = world.dir.path().join("cloud.toml");
    let mut text = format!(
        "Up: a gateway (proxy at {proxy}) and {}, each at the far end of a link of its own.\n\n\
         Reach a web service behind an edge, by plain proxying, CONNECT and SOCKS5:\n  \
         curl -x http://{credential}@{proxy} http://web.{first}/\n  \
         curl -p -x http://{credential}@{proxy} http://web.{first}/bytes/200000 -o /dev/null\n  \
         curl -x socks5h://{credential}@{proxy} http://web.{first}.tunnel/\n",
        names.join(", ")
    );
    match &world.sshd {
        Some(sshd) => {
            text += &format!(
                "Log in to it with OpenSSH (and ncat as its way through the proxy):\n  \
                 ssh -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
                 -o 'ProxyCommand ncat --proxy-type http --proxy {proxy} --proxy-auth {credential} %h %p' ssh.{first}\n",
                sshd.key.display()
            );
        }
        None => text += "Install openssh-server to see SSH here too: no sshd was found that would start.\n",
    }
    text += &format!(
        "Ask the gateway (the file and all else are gone when the lab ends):\n  tunnel-cloud --config {} nodes ls\n\n\
         Type what is to become of the links, while something crosses them:\n  {}\n\n\
         Ctrl-C ends the lab.\n",
        config.display(),
        console::HELP,
    );
    message(&text);
}

/// Shows how each link is doing, and changes links as lines say, for ever.
pub(super) async fn figures(handles: Handles, mut lines: mpsc::Receiver<String>) {
    let terminal = stdout().is_terminal();
    let mut ticks = interval(if terminal { EVERY.0 } else { EVERY.1 });
    let mut before: Vec<PairStats> = handles.edges.iter().map(|(_, link)| link.stats()).collect();
    let mut looked = Instant::now();
    let mut shown = 0;
    let mut answer = None;
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(line) = lines.recv() => {
                answer = console::obey(&line, &handles.edges);
                // The terminal has shown what was typed, in a line of its own.
                shown += 1;
            }
        }
        let elapsed = looked.elapsed().as_secs_f64();
        looked = Instant::now();
        let mut table = Table::new([
            "NODE", "LINK", "RTT", "UP", "DOWN", "QUEUED", "LOST", "STREAMS", "WAITING",
        ]);
        for ((name, relay), before) in handles.edges.iter().zip(&mut before) {
            let now = relay.stats();
            let rate = |now: u64, then: u64| format!("{:.2} Mbit/s", (now - then) as f64 * 8.0 / elapsed / 1e6);
            let tunnel = handles.tunnel(name);
            let status = tunnel.as_ref().and_then(|tunnel| tunnel.status());
            let streams = tunnel.map_or(0, |tunnel| tunnel.open_streams());
            let waiting = if status.is_none() { streams } else { 0 };
            let or_offline = |show: Option<String>| show.unwrap_or_else(|| "offline".to_owned());
            table.row([
                name.as_str(),
                &show(relay.link()),
                &or_offline(status.as_ref().map(|s| format!("{} ms", s.rtt.as_millis()))),
                &rate(now.up.delivered_bytes, before.up.delivered_bytes),
                &rate(now.down.delivered_bytes, before.down.delivered_bytes),
                &format!("{:.1} kB", (now.up.queued_bytes + now.down.queued_bytes) as f64 / 1e3),
                &format!(
                    "{} packets",
                    now.up.lost + now.down.lost + now.up.overflow + now.down.overflow
                ),
                &streams.to_string(),
                &waiting.to_string(),
            ]);
            *before = now;
        }
        let mut text = table.render();
        if let Some(answer) = &answer {
            text += answer;
        }
        let up = if terminal && shown > 0 {
            format!("\x1b[{shown}A\x1b[J")
        } else {
            String::new()
        };
        shown = text.lines().count();
        // Whoever closed the screen does not want figures.
        if data(&format!("{up}{}", text.trim_end())).is_err() {
            return;
        }
    }
}

/// A link in the form in which it is typed. Both directions are alike.
fn show(link: LinkPair) -> String {
    match link.up.up {
        true => link.up.to_string(),
        false => format!("{}, cut", link.up),
    }
}
