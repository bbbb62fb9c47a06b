//! A machine that has something to do: counters move as they do on one that is used.

use std::{
    fs::File,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long it works, and then rests.
const WORK: Duration = Duration::from_millis(30);
const REST: Duration = Duration::from_millis(70);
/// What it writes each time.
const WRITTEN: usize = 256 << 10;

/// Some work, which ends when this is dropped.
pub(super) struct Busy {
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
}

impl Busy {
    pub(super) fn start() -> anyhow::Result<Self> {
        let mut file = tempfile::tempfile()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let worker = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // A full disk changes nothing of what is measured.
                let _ = work(&mut file);
                thread::sleep(REST);
            }
        });
        Ok(Self {
            stop,
            worker: Some(worker),
        })
    }
}

fn work(file: &mut File) -> std::io::Result<()> {
    let begun = Instant::now();
    let mut bytes = vec![0_u8; WRITTEN];
    while begun.elapsed() < WORK {
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = byte.wrapping_mul(31).wrapping_add(n.to_le_bytes()[0]);
        }
    }
    file.set_len(0)?;
    file.write_all(&bytes)?;
    file.sync_data()
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
