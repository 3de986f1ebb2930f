//! Writing to a descriptor that others share, without waiting for whoever reads it.
//!
//! Non-blocking mode belongs to the open file (open(2)): setting it would change it for all who have that open, such
//! as the shell of a terminal. So each write asks not to wait, in the way its kind of file understands.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

use super::{cvt_long, retry};

/// What a descriptor leads to, as far as writing differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file, a terminal or a device.
    Plain,
    /// A pipe or FIFO.
    Pipe,
    /// A stream socket.
    Socket,
}

impl Kind {
    /// Looks at a descriptor; one that is not open is [`Kind::Plain`].
    pub fn of(fd: BorrowedFd<'_>) -> Kind {
        let mode = nix::sys::stat::fstat(fd).map_or(0, |status| status.st_mode);
        match mode & libc::S_IFMT {
            libc::S_IFIFO => Kind::Pipe,
            libc::S_IFSOCK => Kind::Socket,
            _ => Kind::Plain,
        }
    }
}

/// Writes what there is room for now. Interruptions are retried.
///
/// Kernels before 6.4 cannot be asked not to wait for a pipe: it is looked at first, and another writer that
/// fills it at that very moment makes this one wait.
///
/// # Errors
/// `WouldBlock` when nobody reads what a pipe or socket is full of. `BrokenPipe` when nobody ever will:
/// `SIGPIPE` must be ignored.
pub fn write_now(fd: BorrowedFd<'_>, kind: Kind, bytes: &[u8]) -> io::Result<usize> {
    retry(|| match kind {
        Kind::Plain => Ok(nix::unistd::write(fd, bytes)?),
        Kind::Pipe => write_to_pipe(fd, bytes),
        Kind::Socket => Ok(send(fd.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?),
    })
}

fn write_to_pipe(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    /// Both halves of the offset: where write(2) would write.
    const NO_OFFSET: libc::c_long = -1;
    let piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the piece is valid for the call, which reads from it.
    let written = cvt_long(unsafe {
        let pieces: libc::c_long = 1;
        libc::syscall(
            libc::SYS_pwritev2,
            fd.as_raw_fd(),
            &raw const piece,
            pieces,
            NO_OFFSET,
            NO_OFFSET,
            libc::RWF_NOWAIT,
        )
    });
    match written.map_err(|error| (error.raw_os_error(), error)) {
        Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
        // EPERM is what seccomp filters written before the call existed answer.
        Err((Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EPERM), _)) => {
            match await_room(fd, Duration::ZERO)? {
                true => Ok(nix::unistd::write(fd, bytes)?),
                false => Err(io::ErrorKind::WouldBlock.into()),
            }
        }
        Err((_, error)) => Err(error),
    }
}

/// Waits until something can be written to `fd`, or never can be again, for no longer than `patience`; false
/// when it cannot by then. Interruptions are retried.
///
/// # Errors
/// Those of `poll(2)`.
pub fn await_room(fd: BorrowedFd<'_>, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    retry(|| {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        Ok(poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], timeout)? > 0)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::super::fd;
    use super::*;

    const LINE: [u8; 100] = [b'x'; 100];

    /// Writes until there is no room, then makes some, and writes once more.
    #[track_caller]
    fn fills_up_and_goes_on(into: BorrowedFd<'_>, out: BorrowedFd<'_>, kind: Kind) {
        assert_eq!(Kind::of(into), kind);
        let full = loop {
            if let Err(error) = write_now(into, kind, &LINE) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(!await_room(into, Duration::from_millis(1)).unwrap());
        fd::set_nonblocking(out, true).unwrap();
        while fd::read(out, &mut [0; 65536]).is_ok_and(|count| count > 0) {}
        assert!(await_room(into, Duration::ZERO).unwrap());
        assert_eq!(write_now(into, kind, &LINE).unwrap(), LINE.len());
    }

    #[test]
    fn nobody_is_waited_for_who_does_not_read() {
        let (out, into) = fd::pipe().unwrap();
        fills_up_and_goes_on(into.as_fd(), out.as_fd(), Kind::Pipe);
        let (out, into) = UnixStream::pair().unwrap();
        fills_up_and_goes_on(into.as_fd(), out.as_fd(), Kind::Socket);
    }

    #[test]
    fn who_has_gone_is_an_error_and_no_signal() {
        let (out, into) = fd::pipe().unwrap();
        drop(out);
        assert_eq!(write_now(into.as_fd(), Kind::Pipe, &LINE).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(await_room(into.as_fd(), Duration::ZERO).unwrap(), "nothing to wait for");
        let (out, into) = UnixStream::pair().unwrap();
        drop(out);
        assert_eq!(
            write_now(into.as_fd(), Kind::Socket, &LINE).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[test]
    fn files_and_devices_are_plain() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(Kind::of(full.as_fd()), Kind::Plain);
        let error = write_now(full.as_fd(), Kind::Plain, &LINE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
