//! What the kernel knows of a TCP connection. The only unsafe code of the crate.
#![allow(unsafe_code)]

use std::{mem::MaybeUninit, os::fd::AsRawFd, time::Duration};

use tokio::net::TcpStream;

/// Figures of TCP.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub(super) rtt: Duration,
    pub(super) retransmitted: u64,
}

/// Asks the kernel (tcp(7), TCP_INFO).
pub(super) fn tcp_figures(tcp: &TcpStream) -> Option<Figures> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the descriptor is open for as long as `tcp` lives; the kernel writes at most `length` bytes to `info`, which
    // has room for as many.
    let result = unsafe {
        libc::getsockopt(
            tcp.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return None;
    }
    // SAFETY: it holds integers only, for which zeros stand where the kernel wrote nothing.
    let info = unsafe { info.assume_init() };
    Some(Figures {
        rtt: Duration::from_micros(info.tcpi_rtt.into()),
        retransmitted: info.tcpi_total_retrans.into(),
    })
}
