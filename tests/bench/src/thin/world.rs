//! Two network namespaces with a link between them.

use std::{
    fs::File,
    net::Ipv4Addr,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, setns};
use tunnel_linkem::{
    LinkConfig,
    tun::{TunEnd, TunLink},
};

/// The near end's address on the link. From a range kept for measurements (RFC 2544).
pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const DEVICE: &str = "thin0";
/// Packets that a device keeps until the link reads them: enough that only the link drops any.
const DEVICE_QUEUE: u32 = 2_000;
const SEED: u64 = 1;

/// The namespaces and the link. They go when this is dropped.
pub(crate) struct World {
    // Dropped first, as its devices live in the namespaces.
    link: TunLink,
    pub(crate) near: Namespace,
    pub(crate) far: Namespace,
}

impl World {
    /// Lays a link, the same in both directions. Needs root.
    pub(crate) fn lay(link: LinkConfig) -> anyhow::Result<Self> {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let name = format!("bench{}-{number}", std::process::id());
        let near = Namespace::create(format!("{name}-near"))?;
        let far = Namespace::create(format!("{name}-far"))?;
        let end = |namespace: &Namespace| TunEnd {
            namespace: namespace.path(),
            device: DEVICE.to_owned(),
        };
        let laid = TunLink::start(&end(&far), &end(&near), link.into(), SEED).context("no link could be laid")?;
        for (namespace, own, other) in [(&near, NEAR, FAR), (&far, FAR, NEAR)] {
            let queue = DEVICE_QUEUE.to_string();
            namespace.ip(&["link", "set", DEVICE, "txqueuelen", &queue, "up"])?;
            let (own, other) = (own.to_string(), other.to_string());
            namespace.ip(&["addr", "add", &own, "peer", &other, "dev", DEVICE])?;
        }
        Ok(Self { link: laid, near, far })
    }

    /// Cuts the link with all that is on it, or mends it.
    pub(crate) fn set_up(&self, up: bool) {
        self.link.set_link(self.link.link().with_up(up));
    }

    /// Drops what arrives by UDP at either end, without a word, as a firewall on the way does. Needs `iptables`.
    pub(crate) fn block_udp(&self) -> anyhow::Result<()> {
        self.udp("-A")
    }

    /// Lets UDP arrive again.
    pub(crate) fn allow_udp(&self) -> anyhow::Result<()> {
        self.udp("-D")
    }

    fn udp(&self, what: &str) -> anyhow::Result<()> {
        for namespace in [&self.near, &self.far] {
            let rule = ["-w", what, "INPUT", "-i", DEVICE, "-p", "udp", "-j", "DROP"];
            run(
                "ip",
                &[&["netns", "exec", namespace.name(), "iptables"], &rule[..]].concat(),
            )?;
        }
        Ok(())
    }

    /// Bytes of all packets that crossed the link so far, from their IP headers on: towards the far end, and from there.
    pub(crate) fn crossed(&self) -> anyhow::Result<(u64, u64)> {
        let args = ["-n", self.far.name(), "-s", "-j", "link", "show", "dev", DEVICE];
        let output = Command::new("ip").args(args).output().context("`ip` does not start")?;
        let links: serde_json::Value = serde_json::from_slice(&output.stdout).context("`ip` says no JSON")?;
        let bytes = |way: &str| links[0]["stats64"][way]["bytes"].as_u64();
        let both = bytes("rx").zip(bytes("tx"));
        both.with_context(|| format!("{DEVICE} does not count"))
    }
}

/// A network namespace of this process. It is deleted when this is dropped.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    fn create(name: String) -> anyhow::Result<Self> {
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    fn ip(&self, args: &[&str]) -> anyhow::Result<()> {
        ip(&[&["-n", &self.name], args].concat())
    }

    /// Calls `f` in the namespace: the sockets, threads and processes that it makes belong there for good.
    pub(crate) fn enter<T: Send>(&self, f: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let file = File::open(self.path())?;
        // setns changes the calling thread, so a thread that ends with this call makes it.
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&file, CloneFlags::CLONE_NEWNET).context("the namespace cannot be entered")?;
                f()
            });
            match inside.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "del", &self.name]) {
            eprintln!("the namespace {} stays behind: {error:#}", self.name);
        }
    }
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    run("ip", args)
}

fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(args).output();
    let output = output.with_context(|| format!("`{program}` does not start"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "`{program} {}`: {}",
        args.join(" "),
        said.trim()
    );
    Ok(())
}
