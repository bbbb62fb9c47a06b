//! The system calls that make a TUN device. The only unsafe code of the crate.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;
use nix::sched::{CloneFlags, setns};

use super::TunEnd;

nix::ioctl_readwrite_bad!(
    /// Binds an open `/dev/net/tun` to a device of the caller's network namespace (tun(4)).
    tun_set_iff,
    libc::TUNSETIFF,
    libc::ifreq
);

/// Makes a TUN device in a namespace and returns it, not blocking. The device stays bound to that namespace
/// whichever thread uses the file.
pub(super) fn open_in(end: &TunEnd) -> io::Result<File> {
    let namespace = File::open(&end.namespace)?;
    // setns changes the calling thread, so a thread that ends with this call makes it.
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            open(&end.device)
        });
        opening
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}

fn open(device: &str) -> io::Result<File> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
    };
    // The last byte stays zero: the name is a C string.
    if device.is_empty() || device.len() >= request.ifr_name.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("device name {device:?} must have 1 to {} bytes", libc::IFNAMSIZ - 1),
        ));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = flags.try_into().map_err(io::Error::other)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: the descriptor is open for the whole call, and `request` is an initialised ifreq with a
    // terminated name, which TUNSETIFF reads and writes within its bounds.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw mut request) }?;
    Ok(file)
}
