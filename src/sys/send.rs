//! The last bytes of a TCP connection.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::socket::{MsgFlags, send};

use super::retry;

/// Writes what there is room for, for a socket that is closed (or shut down) right after: `MSG_MORE` of
/// send(2) lets bytes that fill no packet wait for that, and they travel with the end of the stream
/// instead of ahead of it. Should nothing follow, the kernel sends them after 200 ms (tcp(7), `TCP_CORK`).
/// Interruptions are retried.
///
/// # Errors
/// `WouldBlock` when there is no room and the socket is in non-blocking mode.
pub fn send_last(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // The crate knows no name for the first.
    let flags = MsgFlags::from_bits_retain(libc::MSG_MORE) | MsgFlags::MSG_NOSIGNAL;
    retry(|| Ok(send(socket.as_raw_fd(), bytes, flags)?))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn bytes_leave_with_the_end_of_the_stream() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback exists");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (server, _) = listener.accept().expect("a client waits");
        let begun = Instant::now();
        assert_eq!(send_last(server.as_fd(), b"the end").expect("there is room"), 7);
        drop(server);
        let mut received = Vec::new();
        client.read_to_end(&mut received).expect("an orderly end");
        assert_eq!(received, b"the end");
        assert!(begun.elapsed() < Duration::from_millis(150), "they waited for the kernel's timer");
    }
}
