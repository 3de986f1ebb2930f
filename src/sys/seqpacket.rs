//! Messages between processes: a socket pair that keeps message borders and carries descriptors.
#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::{mem, ptr};

use nix::sys::socket::{
    self, AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socketpair,
};

use super::retry;

/// Most descriptors one message may carry.
pub const MAX_FDS: usize = 32;

/// What [`recv`] returns.
#[derive(Debug)]
pub struct Received {
    /// Bytes of the message; 0 when the peer has closed its end.
    pub len: usize,
    /// Descriptors that came with it, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Makes a connected pair, both ends non-blocking and close-on-exec.
///
/// # Errors
/// When no descriptor is left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// Sends one message, whole or not at all. Interruptions are retried; a peer that is gone is an
/// error, not a `SIGPIPE`.
///
/// # Errors
/// `WouldBlock` while the peer's queue is full; `BrokenPipe` when it has closed; `InvalidInput`
/// for an empty message, which would read as the end, and for more than [`MAX_FDS`].
pub fn send(fd: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() || fds.len() > MAX_FDS {
        let text = format!("a message of {} bytes and {} descriptors cannot be sent", bytes.len(), fds.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(bytes)];
    retry(|| Ok(sendmsg::<UnixAddr>(fd.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None)?))?;
    Ok(())
}

/// Bytes of the message that [`recv`] returns next; 0 when the peer has closed its end.
///
/// # Errors
/// `WouldBlock` when none has arrived.
pub fn next_length(fd: BorrowedFd<'_>) -> io::Result<usize> {
    // With MSG_TRUNC the real length is told (recv(2)).
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
    despite_reset(|| Ok(socket::recv(fd.as_raw_fd(), &mut [], flags)?))
}

/// Receives one message. Interruptions are retried.
///
/// # Errors
/// `WouldBlock` when none has arrived; `InvalidData` when the message or its descriptors did
/// not fit, in which case the message is gone and descriptors that came along are closed.
pub fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    despite_reset(|| recv_once(fd, buffer))
}

/// Repeats `receive` while it is interrupted, and when the peer has left while messages of ours were unread:
/// the kernel says so once, ahead of what the peer had sent before. That, or the end, comes with the next call.
fn despite_reset<T>(mut receive: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match retry(&mut receive) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            result => return result,
        }
    }
}

/// `recvmsg` by hand: nix cannot hand over the descriptors of a truncated message, and
/// descriptors nobody knows of can never be closed.
fn recv_once(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    // SAFETY: a computation on integers.
    const SPACE: usize = unsafe { libc::CMSG_SPACE((MAX_FDS * size_of::<RawFd>()) as u32) } as usize;
    // Words, because a cmsghdr must be aligned.
    let mut control = [0_u64; SPACE.div_ceil(size_of::<u64>())];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeroes is a valid msghdr: no name, no data, no control data.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = SPACE;
    // SAFETY: the header points to buffers of the lengths it states, alive for the call.
    let len = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;

    // Before any return: they are ours now, and closed on drop.
    let fds = take_fds(&header);
    let truncated = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    if truncated {
        let text = format!("a message larger than {} bytes or {MAX_FDS} descriptors", buffer.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(Received { len, fds })
}

/// Takes ownership of every descriptor that `recvmsg` has left in the control buffer.
fn take_fds(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled the control buffer and set its length.
    let mut next: *const libc::cmsghdr = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR answer null or a whole header in the buffer.
        let message = unsafe { ptr::read(next) };
        if (message.cmsg_level, message.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: a computation on integers.
            let bytes = message.cmsg_len - unsafe { libc::CMSG_LEN(0) } as usize;
            // SAFETY: the data follows its header.
            let data = unsafe { libc::CMSG_DATA(next) }.cast::<RawFd>();
            for index in 0..bytes / size_of::<RawFd>() {
                // SAFETY: `index` is within what the kernel wrote, which need not be aligned.
                let raw = unsafe { data.add(index).read_unaligned() };
                // SAFETY: the kernel has just opened this number for us.
                fds.push(unsafe { OwnedFd::from_raw_fd(raw) });
            }
        }
        // SAFETY: `next` is a header within this buffer.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    fds
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::fd;
    use super::super::testing::alone;
    use super::*;

    #[test]
    fn messages_keep_their_borders_and_bring_their_descriptors() {
        let (a, b) = pair().unwrap();
        let memory = fd::memfd(c"passed").unwrap();
        send(a.as_fd(), b"one", &[]).unwrap();
        send(a.as_fd(), b"three", &[memory.as_fd(), memory.as_fd()]).unwrap();
        let mut buffer = [0; 64];
        let first = recv(b.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..first.len], first.fds.len()), (&b"one"[..], 0));
        let second = recv(b.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..second.len], b"three");
        assert_eq!(second.fds.len(), 2);
        assert_eq!(fd::memfd_name(second.fds[1].as_raw_fd()).as_deref(), Some("passed"));
        assert_eq!(recv(b.as_fd(), &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_closed_peer_reads_as_the_end_and_writes_as_a_broken_pipe() {
        let (a, b) = pair().unwrap();
        drop(b);
        assert_eq!(recv(a.as_fd(), &mut [0; 8]).unwrap().len, 0);
        assert_eq!(send(a.as_fd(), b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn the_last_words_of_a_peer_that_left_messages_unread_are_heard() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), b"never read", &[]).unwrap();
        send(b.as_fd(), b"last words", &[]).unwrap();
        drop(b);
        let mut buffer = [0; 64];
        assert_eq!(recv(a.as_fd(), &mut buffer).unwrap().len, 10);
        assert_eq!(&buffer[..10], b"last words");
        assert_eq!(recv(a.as_fd(), &mut buffer).unwrap().len, 0);
    }

    #[test]
    fn a_message_that_does_not_fit_is_refused_and_leaks_no_descriptor() {
        alone(
            "sys::seqpacket::tests::a_message_that_does_not_fit_is_refused_and_leaks_no_descriptor",
            || {
                let (a, b) = pair().unwrap();
                let memory = fd::memfd(c"passed").unwrap();
                let before = fd::open_fds().unwrap();
                send(a.as_fd(), b"too long", &[memory.as_fd()]).unwrap();
                send(a.as_fd(), b"next", &[]).unwrap();
                let mut buffer = [0; 4];
                assert_eq!(recv(b.as_fd(), &mut buffer).unwrap_err().kind(), io::ErrorKind::InvalidData);
                assert_eq!(fd::open_fds().unwrap(), before);
                assert_eq!(recv(b.as_fd(), &mut buffer).unwrap().len, 4);
            },
        );
    }

    #[test]
    fn too_many_descriptors_are_refused_on_both_sides() {
        alone("sys::seqpacket::tests::too_many_descriptors_are_refused_on_both_sides", || {
            let (a, b) = pair().unwrap();
            let many = vec![a.as_fd(); MAX_FDS + 1];
            assert_eq!(send(a.as_fd(), b"x", &many).unwrap_err().kind(), io::ErrorKind::InvalidInput);
            send(a.as_fd(), b"x", &many[1..]).unwrap();
            assert_eq!(recv(b.as_fd(), &mut [0; 8]).unwrap().fds.len(), MAX_FDS);

            let raw: Vec<RawFd> = many.iter().map(AsRawFd::as_raw_fd).collect();
            let before = fd::open_fds().unwrap();
            let rights = [ControlMessage::ScmRights(&raw)];
            let parts = [IoSlice::new(b"x")];
            sendmsg::<UnixAddr>(a.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
            assert_eq!(recv(b.as_fd(), &mut [0; 8]).unwrap_err().kind(), io::ErrorKind::InvalidData);
            assert_eq!(fd::open_fds().unwrap(), before);
        });
    }

    #[test]
    fn an_empty_message_cannot_be_taken_for_the_end() {
        let (a, _b) = pair().unwrap();
        assert_eq!(send(a.as_fd(), b"", &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_full_queue_would_block() {
        let (a, b) = pair().unwrap();
        let error = loop {
            if let Err(error) = send(a.as_fd(), &[0; 1024], &[]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(b);
    }
}
