//! Connections that the kernel keeps to itself until they have sent something.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::cvt;

/// How long the kernel keeps the connections of a listener that have not sent anything (tcp(7),
/// `TCP_DEFER_ACCEPT`); zero: not at all.
///
/// # Errors
/// When it is no TCP socket.
pub fn get(listener: BorrowedFd<'_>) -> io::Result<Duration> {
    let mut seconds: libc::c_int = 0;
    let mut length = size_of_val(&seconds) as libc::socklen_t;
    // SAFETY: both pointers are to locals, and the length is that of the first.
    cvt(unsafe {
        let value = (&raw mut seconds).cast();
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            value,
            &raw mut length,
        )
    })?;
    Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

/// Sets it, in full seconds. The kernel counts retransmissions of its answer to the client: a time other than
/// 1, 3, 7, … becomes the next of these.
///
/// # Errors
/// When it is no TCP socket.
pub fn set(listener: BorrowedFd<'_>, time: Duration) -> io::Result<()> {
    let seconds = libc::c_int::try_from(time.as_secs()).unwrap_or(libc::c_int::MAX);
    let length = size_of_val(&seconds) as libc::socklen_t;
    // SAFETY: the pointer is to a local, and the length is its own.
    cvt(unsafe {
        let value = (&raw const seconds).cast();
        libc::setsockopt(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, value, length)
    })?;
    Ok(())
}
