//! From a file to a socket within the kernel.

use std::io;
use std::os::fd::BorrowedFd;

use nix::sys::sendfile::sendfile64;

use super::retry;

/// What came of [`sendfile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The socket took so many bytes.
    Bytes(usize),
    /// The file ends before the offset, or at it.
    EndOfFile,
    /// The file system, or the kind of file, cannot do it: copy instead.
    Unsupported,
}

/// Sends at most `count` bytes of `file`, from `offset` on. The file's own position is neither used nor
/// moved. Interruptions are retried.
///
/// Unlike `send(2)` this cannot be told to spare the process the `SIGPIPE` for a client that has left;
/// Rust's runtime ignores that signal.
///
/// # Errors
/// `WouldBlock` when the socket takes nothing now; otherwise those of writing to the socket, and of
/// reading the file ([`is_of_the_file`]).
pub fn sendfile(socket: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, count: usize) -> io::Result<Sent> {
    let Ok(mut offset) = libc::off64_t::try_from(offset) else { return Ok(Sent::EndOfFile) };
    match retry(|| Ok(sendfile64(socket, file, Some(&mut offset), count)?)) {
        Ok(0) => Ok(Sent::EndOfFile),
        Ok(sent) => Ok(Sent::Bytes(sent)),
        Err(error) => match error.raw_os_error() {
            // sendfile(2): EINVAL for files it cannot map, EOVERFLOW for offsets that the file system
            // does not declare to know. Filters of system calls like to say ENOSYS.
            Some(libc::EINVAL | libc::EOVERFLOW | libc::ENOSYS) => Ok(Sent::Unsupported),
            _ => Err(error),
        },
    }
}

/// Whether an error of [`sendfile`] concerns the file and not the socket.
pub fn is_of_the_file(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::ESTALE))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn file(content: &[u8]) -> File {
        let mut file = File::from(crate::sys::fd::memfd(c"sendfile").expect("memory"));
        file.write_all(content).expect("memory");
        file
    }

    #[test]
    fn a_part_is_sent_and_the_position_stays() {
        let (a, mut b) = UnixStream::pair().expect("sockets");
        let mut file = file(b"0123456789");
        assert_eq!(sendfile(a.as_fd(), file.as_fd(), 3, 4).expect("sent"), Sent::Bytes(4));
        assert_eq!(sendfile(a.as_fd(), file.as_fd(), 8, 100).expect("sent"), Sent::Bytes(2));
        assert_eq!(sendfile(a.as_fd(), file.as_fd(), 10, 100).expect("the end"), Sent::EndOfFile);
        assert_eq!(file.stream_position().expect("position"), 10);
        drop(a);
        let mut received = String::new();
        b.read_to_string(&mut received).expect("read");
        assert_eq!(received, "345689");
    }

    #[test]
    fn a_full_socket_would_block() {
        let (a, b) = UnixStream::pair().expect("sockets");
        a.set_nonblocking(true).expect("socket");
        let file = file(&[7; 4096]);
        let error = loop {
            if let Err(error) = sendfile(a.as_fd(), file.as_fd(), 0, 4096) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(b);
        let error = sendfile(a.as_fd(), file.as_fd(), 0, 4096).expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_special_file_cannot_be_sent() {
        let (a, _b) = UnixStream::pair().expect("sockets");
        let memory = File::open("/proc/self/mem").expect("proc");
        assert_eq!(sendfile(a.as_fd(), memory.as_fd(), 4096, 1).expect("told"), Sent::Unsupported);
        assert_eq!(sendfile(a.as_fd(), memory.as_fd(), 1 << 40, 1).expect("told"), Sent::Unsupported);
    }
}
