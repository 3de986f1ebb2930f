//! Stream sockets, without the signal for a peer that has left.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{self, MsgFlags, Shutdown, SockaddrStorage};

use super::retry;

/// Sends what there is room for (send(2)). Interruptions are retried.
///
/// # Errors
/// `WouldBlock` when there is no room and the socket is in non-blocking mode, `BrokenPipe` when the peer has left.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    retry(|| Ok(socket::send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)?))
}

/// The same from several places (sendmsg(2)).
///
/// # Errors
/// As [`send`].
pub fn send_vectored(socket: BorrowedFd<'_>, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
    let nobody: Option<&SockaddrStorage> = None;
    retry(|| Ok(socket::sendmsg(socket.as_raw_fd(), bytes, &[], MsgFlags::MSG_NOSIGNAL, nobody)?))
}

/// Tells the peer that nothing more will come (shutdown(2)).
///
/// # Errors
/// When it is gone.
pub fn shut_down(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(socket::shutdown(socket.as_raw_fd(), Shutdown::Write)?)
}
