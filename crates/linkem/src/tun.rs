//! A link between two network namespaces: a TUN device in each, and IP packets carried between them.
//!
//! The devices appear without an address and down; give them both with `ip` as to any other
//! interface. They vanish with the [`TunLink`]. Needs root, or `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`;
//! its tests are those of the end-to-end lab, which is built on it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use tracing::{debug, error};

use crate::config::LinkPair;
use crate::duplex::Duplex;
use crate::link::Link;
use crate::stats::PairStats;

mod sys;

/// Packets read from one device before the other has its turn.
const BATCH: usize = 64;

const LARGEST_PACKET: usize = 65_535;

/// One end of the link.
#[derive(Clone, Debug)]
pub struct TunEnd {
    /// The namespace's file, like `/run/netns/NAME`.
    pub namespace: PathBuf,
    /// The device's name there, at most 15 bytes.
    pub device: String,
}

/// A running link. It ends, and its devices vanish, when this is dropped.
#[derive(Debug)]
pub struct TunLink {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl TunLink {
    /// Makes both devices and carries packets between them. `up` of the link is from `site` to
    /// `far`.
    ///
    /// # Errors
    /// Where a namespace cannot be entered, or a device cannot be made in it.
    pub fn start(site: &TunEnd, far: &TunEnd, link: LinkPair, seed: u64) -> io::Result<Self> {
        let site = sys::open_in(site)?;
        let far = sys::open_in(far)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                link: Duplex::new(link, seed),
                ended: false,
            }),
            wake: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
        });
        let carrier = Carrier {
            site,
            far,
            shared: Arc::clone(&shared),
            buffer: vec![0; LARGEST_PACKET],
        };
        let thread = std::thread::Builder::new()
            .name("linkem-tun".to_owned())
            .spawn(move || carrier.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Changes the link. Nothing passes under the old settings after this has returned.
    pub fn set_link(&self, link: LinkPair) {
        self.shared.state().link.set(link);
        self.shared.wake();
    }

    /// The settings in force.
    #[must_use]
    pub fn link(&self) -> LinkPair {
        self.shared.state().link.config()
    }

    /// What crossed the link so far.
    #[must_use]
    pub fn stats(&self) -> PairStats {
        self.shared.state().link.stats()
    }
}

impl Drop for TunLink {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the link's thread has panicked");
        }
    }
}

/// What the handle and the thread both touch.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: EventFd,
}

#[derive(Debug)]
struct State {
    link: Duplex<Vec<u8>>,
    ended: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It fails only where the counter is full, and then the thread is being woken already.
        let _ = self.wake.write(1);
    }
}

/// The thread's state. A thread of its own, because the runtime's timers are no finer than 1 ms.
struct Carrier {
    site: File,
    far: File,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
}

/// What a turn found.
enum Turn {
    /// There may be more to read.
    Busy,
    /// Nothing to do until then, or until a packet comes.
    Idle(Option<Instant>),
    Ended,
}

impl Carrier {
    fn run(mut self) {
        loop {
            let waited = match self.turn() {
                // Lets those in who wait for the lock.
                Ok(Turn::Busy) => {
                    std::thread::yield_now();
                    Ok(())
                }
                Ok(Turn::Idle(until)) => self.wait(until),
                Ok(Turn::Ended) => return,
                Err(error) => Err(error),
            };
            if let Err(error) = waited {
                error!(%error, "a link between namespaces failed; it carries nothing any more");
                return;
            }
        }
    }

    /// Packets are written under the lock, so that a change of settings never comes between leaving
    /// the link and leaving the process. No device here blocks.
    fn turn(&mut self) -> io::Result<Turn> {
        let mut state = self.shared.state();
        if state.ended {
            return Ok(Turn::Ended);
        }
        let link = &mut state.link;
        let more_up = read_into(&mut self.site, &mut self.buffer, &mut link.up)?;
        let more_down = read_into(&mut self.far, &mut self.buffer, &mut link.down)?;
        let now = Instant::now();
        write_from(&mut link.up, now, &mut self.far);
        write_from(&mut link.down, now, &mut self.site);
        if more_up || more_down {
            Ok(Turn::Busy)
        } else {
            Ok(Turn::Idle(link.poll_timeout()))
        }
    }

    fn wait(&self, until: Option<Instant>) -> io::Result<()> {
        let timeout = until.map(|until| TimeSpec::from_duration(until - Instant::now()));
        let mut fds = [self.site.as_fd(), self.far.as_fd(), self.shared.wake.as_fd()]
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match ppoll(&mut fds, timeout, None) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        match self.shared.wake.read() {
            Ok(_) | Err(nix::Error::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Moves a batch of packets from a device onto the link, and says whether there may be more.
fn read_into(device: &mut File, buffer: &mut [u8], link: &mut Link<Vec<u8>>) -> io::Result<bool> {
    for _ in 0..BATCH {
        match device.read(buffer) {
            Ok(len) => link.handle_packet(Instant::now(), buffer[..len].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn write_from(link: &mut Link<Vec<u8>>, now: Instant, device: &mut File) {
    while let Some(packet) = link.poll_transmit(now) {
        // The kernel refuses packets while the device is down, and such as corruption has made no
        // IP packets of. Both are lost as on any wire.
        if let Err(error) = device.write(&packet) {
            debug!(%error, "a packet was refused by the far end");
        }
    }
}
